"""Encoded images: in memory, files of their own, in archives, rows of Parquet; and their bytes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cifar_ray.errors import InputError, printable
from cifar_ray.training.data.bucket import File, TarMember

PARQUET_ROWS = 64
"""So many rows are decoded at once; a row group may be larger than memory."""


@dataclass(frozen=True, slots=True)
class ParquetRow:
    """An image in a row of a row group."""

    file: File
    row_group: int
    row: int


Place = bytes | File | TarMember | ParquetRow
Source = tuple[str, Place]
"""An encoded image, or where it lies, after the name that a message gives it."""


@contextmanager
def readable() -> Iterator[None]:
    """Raise `InputError` for what the system does not let us read of DATA."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"Cannot read {printable(str(error.filename or 'DATA'))}: {error.strerror}. Make it"
            " readable, or take it out of DATA."
        ) from error


class Reader:
    """Reads images, and keeps open what the next one may lie in: it is read forwards once."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._archive: tuple[File, BinaryIO] | None = None
        self._rows: _Rows | None = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def read(self, place: Place) -> bytes:
        """Return an image's bytes."""
        if isinstance(place, bytes):
            return place
        if isinstance(place, TarMember):
            return place.read_from(self._archive_of(place.file))
        if isinstance(place, ParquetRow):
            return self._row(place)
        return place.read_bytes()

    def _archive_of(self, file: File) -> BinaryIO:
        if self._archive is None or self._archive[0] is not file:
            self._close()
            self._archive = file, self._open.enter_context(file.open("rb"))
        return self._archive[1]

    def _row(self, place: ParquetRow) -> bytes:
        if self._rows is None or not self._rows.will_pass(place):
            self._close()
            opened = self._open.enter_context(place.file.open("rb"))
            self._rows = _Rows(place, opened)
        return self._rows.read(place.row)

    def _close(self) -> None:
        self._archive = self._rows = None
        self._open.close()


class _Rows:
    """The rows of a row group from its first one on."""

    def __init__(self, first: ParquetRow, opened: BinaryIO) -> None:
        self.first = first
        self.next_row = 0
        # Not ahead: that would read the whole row group.
        parquet = pq.ParquetFile(opened, pre_buffer=False, buffer_size=2**20)
        self.batches: Iterator[pa.RecordBatch] = parquet.iter_batches(
            PARQUET_ROWS, row_groups=[first.row_group], columns=["image"]
        )
        self.batch: pa.Array | None = None

    def will_pass(self, place: ParquetRow) -> bool:
        same = self.first.file is place.file and self.first.row_group == place.row_group
        held = 0 if self.batch is None else len(self.batch)
        return same and place.row >= self.next_row - held

    def read(self, row: int) -> bytes:
        while self.batch is None or row >= self.next_row:
            self.batch = image_bytes(next(self.batches)["image"])
            self.next_row += len(self.batch)
        data: bytes | None = self.batch[row - self.next_row + len(self.batch)].as_py()
        return data or b""


def image_bytes(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return the bytes of a column of them, or of structs that hold them as Hugging Face's do."""
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
