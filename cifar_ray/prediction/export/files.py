"""Files that an export writes: whole or not at all, and never over or into something else."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cifar_ray.errors import InputError, printable
from cifar_ray.storage import FolderStore, Store
from cifar_ray.storage.folder_faults import folder_faults


@contextmanager
def new_file(path: Path, store: Store) -> Iterator[Path]:
    """Give a path to write to; at the end of the block, and not before, it becomes `path`."""
    refuse_inside(path, store)
    if path.exists():
        raise InputError(f"{printable(str(path))} exists. Give another name, or delete it.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"There is no folder {printable(str(path.absolute().parent))}.")
    unfinished = path.with_name(f".{uuid.uuid4().hex}.unfinished")
    with folder_faults(path.parent):
        try:
            yield unfinished
            unfinished.rename(path)
        finally:
            unfinished.unlink(missing_ok=True)


def refuse_inside(path: Path, store: Store) -> None:
    """Raise `InputError` for a place in DEST, where a strange file would break its readers."""
    if not isinstance(store, FolderStore):
        return
    root, resolved = store.root.resolve(), path.absolute().resolve()
    if resolved == root or root in resolved.parents:
        raise InputError(
            f"{printable(str(path))} lies inside the run {printable(store.uri)}. Give "
            "another place."
        )
