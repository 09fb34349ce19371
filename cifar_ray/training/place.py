"""Where a training run lies: in a folder, or in a bucket, for which a folder here is worked in.

What is made for a bucket goes up when it is whole, a put a file, in an order in which a reader, and
a run that goes on, finds nothing half: the JSON of a checkpoint and of a bundle after their
tensors, the metrics of the run last.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cifar_ray.runs import TrainingRun
from cifar_ray.storage import FolderStore, Store, open_store
from cifar_ray.training.checkpoint import STATE

RUN_FOLDER = "run"


class RunPlace:
    """A run's folder on this machine, and the bucket that it is kept in, if it is."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.run = TrainingRun(folder)
        self._bucket = None if isinstance(store, FolderStore) else store

    def names(self) -> list[str]:
        """Return what lies in the run."""
        if self._bucket is not None:
            return self._bucket.names("")
        return [path.name for path in self.run.folder.iterdir()] if self.run.folder.is_dir() else []

    def sweep(self) -> None:
        """Remove what uploads of a killed process have left unfinished in the bucket."""
        if self._bucket is not None:
            self._bucket.sweep()

    def fetch(self, *files: Path) -> None:
        """Bring files here, those that there are."""
        if self._bucket is None:
            return
        for path in files:
            try:
                content = self._bucket.read(self._name(path))
            except FileNotFoundError:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def keep(self, *paths: Path) -> None:
        """Let the bucket have files and folders as they are here, in this order."""
        if self._bucket is None:
            return
        for path in paths:
            inside = [file for file in path.rglob("*") if file.is_file()]
            for file in sorted(inside, key=_json_last) if path.is_dir() else [path]:
                self._bucket.write(self._name(file), file.read_bytes())

    def fetch_checkpoints(self) -> None:
        """Bring the checkpoints here that are whole."""
        if self._bucket is None:
            return
        for path in self._kept_checkpoints():
            self.fetch(*(path / name for name in self._bucket.names(self._name(path))))

    def keep_checkpoints(self) -> None:
        """Let the bucket have the checkpoints that are here, and no others."""
        if self._bucket is None:
            return
        here, there = set(self.run.checkpoints.iterdir()), set(self._kept_checkpoints())
        self.keep(*sorted(here - there))
        for name in self._bucket.names(self._name(self.run.checkpoints)):
            if self.run.checkpoints / name not in here:
                self._bucket.delete(self._name(self.run.checkpoints / name))

    def _kept_checkpoints(self) -> list[Path]:
        """Return the places here of the bucket's checkpoints, but for what a kill left of one."""
        assert self._bucket is not None
        found = self._bucket.names(self._name(self.run.checkpoints))
        paths = [self.run.checkpoints / name for name in found]
        return [path for path in paths if self._bucket.exists(self._name(path / STATE))]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.run.folder).as_posix()


@contextmanager
def open_place(uri: str) -> Iterator[RunPlace]:
    """Open a folder or an `s3://` place for a run; nothing is read or written there yet.

    Raises `InputError` for a place that cannot be used.
    """
    store = open_store(uri)
    store.check()
    if isinstance(store, FolderStore):
        yield RunPlace(store, store.root)
        return
    with tempfile.TemporaryDirectory(prefix="cifar-ray-") as folder:
        yield RunPlace(store, Path(folder) / RUN_FOLDER)


def _json_last(path: Path) -> tuple[bool, str]:
    return path.suffix == ".json", path.as_posix()
