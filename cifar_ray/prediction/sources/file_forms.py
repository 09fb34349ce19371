"""What a SOURCE that is one file is: a manifest, an S3 Inventory, or a container."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_ray.config.labelling import LabellingConfig, SourceKind, SourceReference
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.sources.base import Skipped
from cifar_ray.prediction.sources.blobs import SourceFile, split_file
from cifar_ray.prediction.sources.columns import carried_columns
from cifar_ray.prediction.sources.containers import ContainerFormat, Containers
from cifar_ray.prediction.sources.inventory import MANIFEST_NAME, find_inventory
from cifar_ray.prediction.sources.manifest_file import EXTENSIONS, find_manifest
from cifar_ray.prediction.sources.parquet import ParquetFormat, image_column
from cifar_ray.prediction.sources.tar import TarFormat
from cifar_ray.prediction.sources.zip import ZipFormat
from cifar_ray.storage import S3_SCHEME

FORMATS: dict[SourceKind, ContainerFormat] = {
    "parquet": ParquetFormat(),
    "tar": TarFormat(),
    "zip": ZipFormat(),
}
_PACKED_TAR = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
FILES = (*EXTENSIONS, *(end for f in FORMATS.values() for end in f.extensions), *_PACKED_TAR)
"""How the names of files end that may be a SOURCE; an inventory's is `MANIFEST_NAME`."""
ALLOWED = (
    "Allowed are a folder of images, or s3://BUCKET/PREFIX; a manifest (.parquet, .csv or .jsonl "
    "with a column `uri`, or an S3 Inventory's manifest.json); a .tar, a .zip, or a .parquet with "
    "a column `image`; and a folder, a prefix or a pattern ('shards/*.tar') of these three."
)


def find_file(source: SourceFile, root: str | None, config: LabellingConfig) -> SourceReference:
    """Return what a file is; `InputError` if it is nothing that can be labelled."""
    if source.name == MANIFEST_NAME.encode():
        return with_options(find_inventory(source), root, config)
    if _is_manifest(source):
        return find_manifest(source, _root(source, root), config.columns)
    reference = SourceReference(kind=container_kind(str(source)), uri=str(source))
    return with_options(reference, root, config)


def with_options(
    reference: SourceReference, root: str | None, config: LabellingConfig
) -> SourceReference:
    """Add the columns that the run carries; refuse options that are for other sources."""
    if root is not None:
        raise InputError(f"--root is for manifests, and SOURCE {printable(reference.uri)} is none.")
    return _with_columns(reference, config)


def _root(source: SourceFile, root: str | None) -> str | None:
    """Return where a manifest's images lie; None for the bucket that a manifest lies in."""
    if root is None:
        folder = split_file(str(source))[0]
        return None if folder.startswith(S3_SCHEME) else folder
    if root.startswith(S3_SCHEME):
        return root
    if "://" in root and not root.startswith("file://"):
        raise InputError(f"--root {printable(root)}: allowed are a folder and s3://BUCKET/PREFIX.")
    if str(source).startswith(S3_SCHEME):
        raise InputError(
            f"--root {printable(root)}: a manifest in a bucket names no files of this machine. "
            "Give s3://BUCKET, or copy the manifest here."
        )
    folder_path = Path(root.removeprefix("file://")).expanduser().absolute()
    if not folder_path.is_dir():
        raise InputError(
            f"--root {printable(str(folder_path))} is no folder. Give that of the images."
        )
    return str(folder_path)


def _is_manifest(source: SourceFile) -> bool:
    if source.extension != ".parquet":
        return source.extension in EXTENSIONS
    return image_column(_parquet_schema(source)) is None


def container_kind(name: str) -> SourceKind:
    """Return what a file's name says it is; `InputError` if it is no container's."""
    for kind, format_ in FORMATS.items():
        if name.lower().endswith(format_.extensions):
            return kind
    if name.lower().endswith(_PACKED_TAR):
        raise InputError(
            f"SOURCE {printable(name)} is a compressed tar, which can only be read from its "
            "beginning. Decompress it (images gain nothing from it), or unpack it into a folder."
        )
    raise InputError(f"SOURCE {printable(name)} is a file of another kind. {ALLOWED}")


def _with_columns(reference: SourceReference, config: LabellingConfig) -> SourceReference:
    """Add the columns that the run carries, which only Parquet has."""
    if reference.kind != "parquet":
        if config.columns:
            raise InputError(
                "--columns is for manifests and Parquet files, and SOURCE "
                f"{printable(reference.uri)} is none."
            )
        return reference
    containers = Containers(reference, FORMATS["parquet"].extensions, config)
    first = next(name for name in containers.names() if not isinstance(name, Skipped))
    source = SourceFile(containers.blobs(), first)
    schema = _parquet_schema(source)
    if image_column(schema) is None:
        raise InputError(
            f"{printable(str(source))} has no column `image` of bytes (its columns: "
            f"{', '.join(printable(name) for name in schema.names)}). {ALLOWED}"
        )
    available = {field.name: field.type for field in schema}
    carried = carried_columns(config.columns, available, str(source))
    return reference.model_copy(update={"carried": carried})


def _parquet_schema(source: SourceFile) -> pa.Schema:
    try:
        with source.open() as file:
            return pq.read_schema(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{printable(str(source))} is no Parquet file, or was cut. Bring a whole copy."
        ) from error
