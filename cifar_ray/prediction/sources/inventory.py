"""An S3 Inventory as a listing of a bucket: `manifest.json` and its data files, beside it.

After Amazon's "Amazon S3 Inventory" and its manifest: CSV (gzip, keys percent-encoded) or Parquet,
columns as `fileSchema` names them. Of a versioned bucket the latest versions count; others and
delete markers are skipped.
"""

import csv
import gzip
import io
import posixpath
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cifar_ray.config.labelling import LabellingConfig, SourceReference
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.sources.base import Entry, Fetcher, Skipped, skipped_object_kind
from cifar_ray.prediction.sources.blobs import SourceFile, blobs_below
from cifar_ray.prediction.sources.manifest_file import file_digest
from cifar_ray.storage import S3_SCHEME, S3Address

MANIFEST_NAME = "manifest.json"
BATCH_ROWS = 4096
MAX_MANIFEST_BYTES = 64 * 2**20
_PARQUET_FIELD = re.compile(r"(?:required|optional)\s+\w+\s+(\w+)")
_DAMAGE = (pa.ArrowException, OSError, EOFError, ValueError, KeyError, csv.Error, zlib.error)


class DataFile(BaseModel):
    """One data file; `key` is its place in the bucket that the inventory was written to."""

    model_config = ConfigDict(frozen=True)

    key: str
    size: int | None = None


class Inventory(BaseModel):
    """`manifest.json`, as far as it is read."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    bucket: str = Field(alias="sourceBucket", min_length=1)
    file_format: Literal["CSV", "Parquet"] = Field(alias="fileFormat")
    file_schema: str = Field(alias="fileSchema")
    files: tuple[DataFile, ...]

    @property
    def columns(self) -> list[str]:
        """The columns, in the order of the CSV. Parquet's schema says `required binary key`, …."""
        if self.file_format == "CSV":
            return [_plain(name) for name in self.file_schema.split(",")]
        return [_plain(name) for name in _PARQUET_FIELD.findall(self.file_schema)]


def find_inventory(source: SourceFile) -> SourceReference:
    """Return the reference of an inventory; `InputError` if it is none or not whole."""
    inventory = read_inventory(source)
    missing = {"bucket", "key", "size", "etag"} - set(inventory.columns)
    if missing:
        raise InputError(
            f"SOURCE {printable(str(source))} is an inventory without "
            f"{', '.join(sorted(missing))}. Size and ETag are optional fields: switch them on "
            "where the inventory is configured."
        )
    for file in inventory.files:
        data_file(source, file)
    return SourceReference(
        kind="inventory",
        uri=str(source),
        root=f"s3://{inventory.bucket}",
        digest=file_digest(source),
    )


def read_inventory(source: SourceFile) -> Inventory:
    """Read `manifest.json`."""
    try:
        with source.open() as file:
            return Inventory.model_validate_json(file.read(MAX_MANIFEST_BYTES))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "it"
        raise InputError(
            f"SOURCE {printable(str(source))} is no manifest of an S3 Inventory: {where}: "
            f"{fault['msg']}. Allowed are inventories in CSV or Parquet."
        ) from error


def data_file(manifest: SourceFile, file: DataFile) -> SourceFile:
    """Return where a data file lies: beside the manifest, in `data/`, or as S3 lays it out."""
    name = file.key.rsplit("/", 1)[-1]
    for folder in () if name in ("", ".", "..") else ("", "data", "../data"):
        found = _beside(manifest, posixpath.join(folder, name))
        try:
            size_bytes = found.blobs.look(found.name).size_bytes
        except InputError:
            continue
        if file.size is not None and size_bytes != file.size:
            raise InputError(
                f"SOURCE {printable(str(manifest))}: its data file {printable(str(found))} has "
                f"{size_bytes:,} bytes and shall have {file.size:,}. Copy it again."
            )
        return found
    raise InputError(
        f"SOURCE {printable(str(manifest))}: its data file {printable(file.key)} is not there. "
        f"Copy it beside the manifest, or into {printable(str(_beside(manifest, 'data')))}."
    )


def _beside(manifest: SourceFile, path: str) -> SourceFile:
    """Return a file by its path from the manifest, which in a bucket may lead upwards as well."""
    uri = str(manifest)
    if not uri.startswith(S3_SCHEME):
        return SourceFile(manifest.blobs, path.encode())
    bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
    name = posixpath.normpath(posixpath.join(posixpath.dirname(key), path))
    return SourceFile(blobs_below(f"{S3_SCHEME}{bucket}"), name.encode())


@dataclass(frozen=True, slots=True)
class InventorySource:
    """The bucket that an inventory lists."""

    reference: SourceReference
    config: LabellingConfig

    @property
    def address(self) -> S3Address:
        """The bucket."""
        assert self.reference.root is not None, "find_inventory gives one"
        return S3Address.parse(self.reference.root)

    def listing(self, range_number: int) -> "InventoryListing":
        """Return the listing; an inventory is one range."""
        return InventoryListing(self.reference, self.config)

    def fetcher(self) -> Fetcher:
        """Return a reader of the bucket."""
        # boto3 takes a third of a second to load.
        from cifar_ray.prediction.sources.s3_fetch import S3Fetcher

        return S3Fetcher(self.address)

    def uri(self, entry: Entry) -> str:
        """Return the `s3://` uri that opens an image."""
        return f"s3://{self.address.bucket}/{entry.key}"


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of an inventory. What it has no column for is None."""

    bucket: str
    key: str
    size_bytes: int | None
    etag: str | None
    latest: bool
    deleted: bool


@dataclass(frozen=True, slots=True)
class InventoryListing:
    """The objects of a bucket, in the order of the inventory's files."""

    reference: SourceReference
    config: LabellingConfig

    def entries(self, after: str | None) -> Iterator[Entry | Skipped]:
        """Yield objects by their key in the bucket; a cursor is `file:row`.

        Raises `InputError` for a data file that is missing, damaged, or of another bucket.
        """
        source = SourceFile.at(self.reference.uri)
        inventory = read_inventory(source)
        first_file, first_row = (int(part) for part in after.split(":")) if after else (0, 0)
        for number in range(first_file, len(inventory.files)):
            data = data_file(source, inventory.files[number])
            skip = first_row if number == first_file else 0
            for row, listed in enumerate(_rows(inventory, data), 1):
                if row > skip:
                    yield self._item(inventory, listed, f"{number}:{row}")

    def _item(self, inventory: Inventory, row: Listed, position: str) -> Entry | Skipped:
        if row.bucket != inventory.bucket:
            raise InputError(
                f"SOURCE {printable(self.reference.uri)} is of the bucket "
                f"{printable(inventory.bucket)}, and lists {printable(row.bucket)} too."
            )
        if row.deleted or not row.latest:
            return Skipped("(delete marker)" if row.deleted else "(older version)")
        skipped = skipped_object_kind(row.key, self.config)
        if skipped is not None:
            return Skipped(skipped)
        size_bytes = 0 if row.size_bytes is None else row.size_bytes
        return Entry(row.key, (row.etag or "").strip('"'), size_bytes, None, position)


def _rows(inventory: Inventory, data: SourceFile) -> Iterator[Listed]:
    rows = _parquet_rows(data) if inventory.file_format == "Parquet" else _csv_rows(inventory, data)
    number = 0
    while True:
        number += 1
        try:
            row = next(rows, None)
            listed = None if row is None else _listed(row)
        except _DAMAGE as error:
            raise InputError(
                f"The inventory's data file {printable(str(data))} is damaged at row {number:,}. "
                "Copy it again."
            ) from error
        if listed is None:
            return
        yield listed


def _listed(row: dict[str, Any]) -> Listed:
    size = row.get("size")
    return Listed(
        bucket=row["bucket"],
        key=row["key"],
        size_bytes=None if size in (None, "") else int(size),
        etag=row.get("etag"),
        latest=_is_true(row.get("islatest"), default=True),
        deleted=_is_true(row.get("isdeletemarker"), default=False),
    )


def _is_true(value: Any, default: bool) -> bool:
    if value is None or value == "":
        return default
    return value if isinstance(value, bool) else str(value).lower() == "true"


def _csv_rows(inventory: Inventory, data: SourceFile) -> Iterator[dict[str, Any]]:
    names = inventory.columns
    with data.open() as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        unpacked = gzip.GzipFile(fileobj=raw) if packed else raw
        text = io.TextIOWrapper(unpacked, "utf-8", newline="")
        for fields in csv.reader(text, strict=True):
            row = dict(zip(names, fields, strict=True))
            yield {**row, "key": unquote_plus(row["key"], errors="strict")}


def _parquet_rows(data: SourceFile) -> Iterator[dict[str, Any]]:
    with data.open() as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
        wanted = ("bucket", "key", "size", "etag", "islatest", "isdeletemarker")
        names = [name for name in file.schema_arrow.names if _plain(name) in wanted]
        for batch in file.iter_batches(BATCH_ROWS, columns=names):
            for row in batch.to_pylist():
                yield {_plain(name): value for name, value in row.items()}


def _plain(name: str) -> str:
    """Return a column's name in the one spelling: `IsLatest` and `is_latest` are the same."""
    return name.strip().lower().replace("_", "")
