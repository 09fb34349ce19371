"""Parquet files with image bytes: a column `image`, of bytes or of Hugging Face's {bytes, path}.

A row's key is its path, if the file has one: `image.path`, or a column of text named as in
`KEY_COLUMNS`; else its number in the file.
"""

import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_ray.config.labelling import CarriedColumn
from cifar_ray.errors import ImageFault
from cifar_ray.prediction.sources.base import MAX_IMAGE_BYTES, UNKNOWN_SIZE, Skipped
from cifar_ray.prediction.sources.blobs import Blobs, Version
from cifar_ray.prediction.sources.containers import ContainerDamaged, Member

IMAGE = "image"
KEY_COLUMNS = ("key", "path", "file_name", "filename", "uri")
LISTED_ROWS = 4096
BATCH_BYTES = 4 * 2**20
"""Of image bytes that are decoded at a time, by the file's own statistics."""
MAX_BATCH_ROWS = 1024
BUFFER_BYTES = 2**20
"""Read from a file at a time; without it, the whole column of a row group would be."""
BATCHES_KEPT = 3
"""Of each file: threads ask for rows of neighbouring batches side by side."""
FILES_KEPT = 4
_PLACE = struct.Struct(">II")  # row group, row in it
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError)


def image_column(schema: pa.Schema) -> str | None:
    """Return the column with the bytes, as Parquet names it; None if there is none."""
    if IMAGE not in schema.names:
        return None
    kind = schema.field(IMAGE).type
    if _is_bytes(kind):
        return IMAGE
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return f"{IMAGE}.bytes" if _is_bytes(kind.field("bytes").type) else None
    return None


def key_column(schema: pa.Schema) -> str | None:
    """Return the column with the keys, as Parquet names it; None if rows are numbered."""
    kind = schema.field(IMAGE).type
    if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        return f"{IMAGE}.path"
    texts = (n for n in KEY_COLUMNS if n in schema.names and is_text(schema.field(n).type))
    return next(texts, None)


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column holds strings."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


class ParquetFormat:
    """Parquet files with image bytes."""

    extensions: tuple[str, ...] = (".parquet",)

    def members(
        self,
        file: BinaryIO,
        size_bytes: int,
        start: int | None,
        columns: tuple[CarriedColumn, ...],
    ) -> Iterator[Member | Skipped]:
        """Yield rows; a position is the number of the row that follows. No image is read."""
        try:
            yield from _rows(
                pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER_BYTES),
                start or 0,
                columns,
            )
        except _DAMAGE as error:
            raise ContainerDamaged("it was cut, or is no Parquet file") from error

    def reader(self, blobs: Blobs) -> "ParquetReader":
        """Return a reader."""
        return ParquetReader(blobs)


def _rows(file: pq.ParquetFile, start: int, columns: tuple[CarriedColumn, ...]) -> Iterator[Member]:
    schema = file.schema_arrow
    if image_column(schema) is None:
        raise ContainerDamaged(f"it has no column `{IMAGE}` of bytes, as the first one has")
    missing = [column.name for column in columns if column.name not in schema.names]
    if missing:
        raise ContainerDamaged(f"it has no column `{missing[0]}`, as the first one has")
    key = key_column(schema)
    names = [column.name for column in columns]
    number = 0
    for group in range(file.metadata.num_row_groups):
        num_rows = file.metadata.row_group(group).num_rows
        if number + num_rows <= start:
            number += num_rows
            continue
        row = 0
        for keys, carried in _columns(file, group, key, names):
            for at, name in enumerate(keys):
                if number >= start:
                    raw = str(number) if name is None else name
                    place = _PLACE.pack(group, row)
                    values = tuple(column[at] for column in carried)
                    yield Member(raw.encode(), UNKNOWN_SIZE, place, number + 1, values)
                number += 1
                row += 1


def _columns(
    file: pq.ParquetFile, group: int, key: str | None, names: list[str]
) -> Iterator[tuple[list[str | None], list[list[object]]]]:
    """Yield keys and carried values of a row group, some thousand rows at a time."""
    wanted = names if key is None else [key, *names]
    if not wanted:
        yield [None] * file.metadata.row_group(group).num_rows, []
        return
    for batch in file.iter_batches(LISTED_ROWS, row_groups=[group], columns=wanted):
        keys: list[str | None] = [None] * batch.num_rows
        if key is not None:
            top = key.partition(".")[0]
            column = batch.column(top)
            keys = (_field(column, "path") if "." in key else column).to_pylist()
        yield keys, [batch.column(name).to_pylist() for name in names]


def _field(structs: pa.StructArray, name: str) -> pa.Array:
    """Return a field's values, null where the struct is; Arrow's compute module need not load."""
    return structs.flatten()[structs.type.get_field_index(name)]


@dataclass(slots=True)
class _Open:
    """A file that is being read: batches of one row group, in order, and the last ones of them."""

    file: pq.ParquetFile
    column: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    group: int = -1
    batches: Iterator[pa.RecordBatch] = field(default_factory=lambda: iter(()))
    next_row: int = 0
    kept: OrderedDict[int, pa.Array] = field(default_factory=OrderedDict)

    def value(self, group: int, row: int) -> bytes | None:
        """Return a row's bytes. Going back further than what is kept begins the group again."""
        with self.lock:
            if group != self.group or (row < self.next_row and self._found(row) is None):
                self._begin(group)
            while (found := self._found(row)) is None:
                self._advance()
        data: bytes | None = found.as_py()
        return data

    def _begin(self, group: int) -> None:
        self.group, self.next_row = group, 0
        self.kept.clear()
        self.batches = self.file.iter_batches(
            batch_rows(self.file, group, self.column), row_groups=[group], columns=[self.column]
        )

    def _advance(self) -> None:
        batch = next(self.batches, None)
        if batch is None:
            raise ImageFault("fetch_failed", "not in its Parquet file, though listed")
        array = batch.column(IMAGE)
        if pa.types.is_struct(array.type):
            array = _field(array, "bytes")
        self.kept[self.next_row] = array
        self.next_row += len(array)
        if len(self.kept) > BATCHES_KEPT:
            self.kept.popitem(last=False)

    def _found(self, row: int) -> pa.Scalar | None:
        for first, array in self.kept.items():
            if first <= row < first + len(array):
                return array[row - first]
        return None


def batch_rows(file: pq.ParquetFile, group: int, column: str) -> int:
    """Return how many rows of a group to decode at a time, so that they take some megabytes."""
    metadata = file.metadata.row_group(group)
    sizes = [
        metadata.column(index).total_uncompressed_size
        for index in range(metadata.num_columns)
        if metadata.column(index).path_in_schema == column
    ]
    each = max(1, sum(sizes) // max(1, metadata.num_rows))
    return int(min(MAX_BATCH_ROWS, max(1, BATCH_BYTES // each)))


class ParquetReader:
    """Reads rows, with the few files used last kept open and the last batches of each decoded."""

    def __init__(self, blobs: Blobs) -> None:
        """Nothing is opened yet."""
        self.blobs = blobs
        self.opened: OrderedDict[Version, _Open] = OrderedDict()
        self.lock = threading.Lock()

    def read(self, container: Version, place: bytes, size_bytes: int) -> bytes:
        """Return a row's bytes; none at all for null."""
        group, row = _PLACE.unpack(place)
        try:
            data = self._open(container).value(group, row)
        except _DAMAGE as error:
            # Looked at again, since a file that is gone or another is no fault of its rows.
            self.blobs.read_range(container, 0, 1)
            raise ImageFault("fetch_failed", "damaged within its Parquet file") from error
        if data is not None and len(data) > MAX_IMAGE_BYTES:
            raise ImageFault("too_large", f"more than {MAX_IMAGE_BYTES} bytes")
        return data or b""

    def _open(self, container: Version) -> _Open:
        with self.lock:
            found = self.opened.pop(container, None)
            if found is None:
                file = pq.ParquetFile(
                    self.blobs.reopen(container), pre_buffer=False, buffer_size=BUFFER_BYTES
                )
                column = image_column(file.schema_arrow)
                if column is None:
                    raise KeyError(IMAGE)
                found = _Open(file, column)
            self.opened[container] = found
            if len(self.opened) > FILES_KEPT:
                self.opened.popitem(last=False)
            return found
