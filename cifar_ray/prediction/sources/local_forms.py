"""What a SOURCE on this machine is: a folder of images or of containers, a pattern, or a file."""

from collections import Counter
from pathlib import Path

from cifar_ray.config.labelling import LabellingConfig, SourceKind, SourceReference
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.sources.base import Entry
from cifar_ray.prediction.sources.blobs import SourceFile
from cifar_ray.prediction.sources.containers import WHOLE_FOLDER
from cifar_ray.prediction.sources.file_forms import (
    ALLOWED,
    FORMATS,
    container_kind,
    find_file,
    with_options,
)
from cifar_ray.prediction.sources.folder import FolderListing
from cifar_ray.storage.folder_faults import folder_faults

_WILDCARDS = frozenset("*?[")


def find_local(text: str, root: str | None, config: LabellingConfig) -> SourceReference:
    """Return what a path or a pattern is; `InputError` if it is nothing that can be labelled."""
    path = Path(text).expanduser().absolute()
    with folder_faults(path):
        return _find(path, root, config)


def _find(path: Path, root: str | None, config: LabellingConfig) -> SourceReference:
    reference: SourceReference | None = None
    if path.is_dir():
        reference = _folder(path, config)
    elif path.exists():
        return find_file(SourceFile.at(str(path)), root, config)
    elif _WILDCARDS & set(str(path)):
        reference = _pattern(path)
    if reference is None:
        raise InputError(f"SOURCE {printable(str(path))} does not exist. {ALLOWED}")
    return with_options(reference, root, config)


def _folder(path: Path, config: LabellingConfig) -> SourceReference:
    """Tell a folder of images from one of containers: one that holds nothing else to label."""
    kinds: Counter[SourceKind] = Counter()
    for item in FolderListing(path, LabellingConfig(), config).entries(None):
        if isinstance(item, Entry):
            return SourceReference(kind="folder", uri=str(path))
        for kind, format_ in FORMATS.items():
            kinds[kind] += item.kind in format_.extensions
    found = [kind for kind, number in kinds.items() if number]
    if not found:
        return SourceReference(kind="folder", uri=str(path))
    if len(found) > 1:
        raise InputError(
            f"SOURCE {printable(str(path))} holds containers of several kinds "
            f"({', '.join(found)}). Give a pattern, such as '{printable(str(path))}/**/*.tar'."
        )
    return SourceReference(kind=found[0], uri=str(path), pattern=WHOLE_FOLDER)


def _pattern(path: Path) -> SourceReference | None:
    """Return the containers that a pattern names; None if there are none."""
    fixed = []
    for part in path.parts:
        if _WILDCARDS & set(part):
            break
        fixed.append(part)
    folder = Path(*fixed)
    pattern = "/".join(path.parts[len(fixed) :])
    found = sorted(item for item in folder.glob(pattern) if item.is_file())
    if not found:
        return None
    kinds = {container_kind(str(item)) for item in found}
    if len(kinds) > 1:
        raise InputError(
            f"SOURCE {printable(str(path))} names containers of several kinds "
            f"({', '.join(sorted(kinds))}). Give a pattern for one of them."
        )
    return SourceReference(kind=kinds.pop(), uri=str(folder), pattern=pattern)
