"""What a SOURCE on this machine is: a folder of images, a manifest, a container, or several."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_ray.config.labelling import LabellingConfig, SourceKind, SourceReference
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.sources.base import Entry, Skipped, Source
from cifar_ray.prediction.sources.columns import carried_columns
from cifar_ray.prediction.sources.containers import (
    WHOLE_FOLDER,
    ContainerFormat,
    Containers,
    ContainerSource,
)
from cifar_ray.prediction.sources.folder import FolderListing, FolderSource
from cifar_ray.prediction.sources.inventory import (
    MANIFEST_NAME,
    InventorySource,
    find_inventory,
)
from cifar_ray.prediction.sources.manifest_file import EXTENSIONS, ManifestSource, find_manifest
from cifar_ray.prediction.sources.parquet import ParquetFormat, image_column
from cifar_ray.prediction.sources.tar import TarFormat
from cifar_ray.prediction.sources.zip import ZipFormat

FORMATS: dict[SourceKind, ContainerFormat] = {
    "parquet": ParquetFormat(),
    "tar": TarFormat(),
    "zip": ZipFormat(),
}
_PACKED_TAR = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_WILDCARDS = frozenset("*?[")
ALLOWED = (
    "Allowed are a folder of images; a manifest (.parquet, .csv or .jsonl with a column `uri`, or "
    "an S3 Inventory's manifest.json); a .tar, a .zip, or a .parquet with a column `image`; and "
    "a folder or a pattern ('shards/*.tar') of these three."
)


def find_local(text: str, root: str | None, columns: tuple[str, ...]) -> SourceReference:
    """Return what a path or a pattern is; `InputError` if it is nothing that can be labelled."""
    path = Path(text).expanduser().absolute()
    reference: SourceReference | None = None
    if path.is_dir():
        reference = _folder(path)
    elif path.exists():
        if path.name == MANIFEST_NAME:
            reference = find_inventory(path)
        elif _is_manifest(path):
            folder = path.parent if root is None else _root(root)
            return find_manifest(path, folder, columns)
        else:
            reference = SourceReference(kind=_container_kind(path), uri=str(path))
    elif _WILDCARDS & set(text):
        reference = _pattern(path)
    if reference is None:
        raise InputError(f"SOURCE {printable(str(path))} does not exist. {ALLOWED}")
    if root is not None:
        raise InputError(f"--root is for manifests, and SOURCE {printable(text)} is none.")
    return _with_columns(reference, columns)


def _root(text: str) -> Path:
    if "://" in text and not text.startswith("file://"):
        raise InputError(
            f"--root {printable(text)}: the uris of a manifest lie in a folder of this machine. "
            "For a bucket, give the bucket or its S3 Inventory as SOURCE."
        )
    return Path(text.removeprefix("file://")).expanduser().absolute()


def open_local(reference: SourceReference, config: LabellingConfig) -> Source:
    """Return the store."""
    if reference.kind == "folder":
        return FolderSource(reference, config)
    if reference.kind == "manifest":
        return ManifestSource(reference, config)
    if reference.kind == "inventory":
        return InventorySource(reference, config)
    return ContainerSource(reference, config, FORMATS[reference.kind])


def _is_manifest(path: Path) -> bool:
    extension = path.suffix.lower()
    if extension != ".parquet":
        return extension in EXTENSIONS
    return image_column(_parquet_schema(path)) is None


def _container_kind(path: Path) -> SourceKind:
    name = path.name.lower()
    for kind, format_ in FORMATS.items():
        if name.endswith(format_.extensions):
            return kind
    if name.endswith(_PACKED_TAR):
        raise InputError(
            f"SOURCE {printable(str(path))} is a compressed tar, which can only be read from its "
            "beginning. Decompress it (images gain nothing from it), or unpack it into a folder."
        )
    raise InputError(f"SOURCE {printable(str(path))} is a file of another kind. {ALLOWED}")


def _folder(path: Path) -> SourceReference:
    """Tell a folder of images from one of containers: one that holds nothing else to label."""
    kinds: Counter[SourceKind] = Counter()
    for item in _files(path):
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


def _files(path: Path) -> Iterator[Entry | Skipped]:
    return FolderListing(path, LabellingConfig()).entries(None)


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
    kinds = {_container_kind(item) for item in found}
    if len(kinds) > 1:
        raise InputError(
            f"SOURCE {printable(str(path))} names containers of several kinds "
            f"({', '.join(sorted(kinds))}). Give a pattern for one of them."
        )
    return SourceReference(kind=kinds.pop(), uri=str(folder), pattern=pattern)


def _with_columns(reference: SourceReference, columns: tuple[str, ...]) -> SourceReference:
    """Add the columns that the run carries, which only Parquet has."""
    if reference.kind != "parquet":
        if columns:
            raise InputError(
                "--columns is for manifests and Parquet files, and SOURCE "
                f"{printable(reference.uri)} is none."
            )
        return reference
    containers = Containers(reference, FORMATS["parquet"].extensions)
    first = next(name for name in containers.names() if not isinstance(name, Skipped))
    path = containers.root / os.fsdecode(first)
    schema = _parquet_schema(path)
    if image_column(schema) is None:
        raise InputError(
            f"{printable(str(path))} has no column `image` of bytes (its columns: "
            f"{', '.join(printable(name) for name in schema.names)}). {ALLOWED}"
        )
    available = {field.name: field.type for field in schema}
    carried = carried_columns(columns, available, str(path))
    return reference.model_copy(update={"carried": carried})


def _parquet_schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{printable(str(path))} is no Parquet file, or was cut. Bring a whole copy."
        ) from error
