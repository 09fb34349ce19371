"""Rows of a manifest as they are written, from the first or from where a listing stopped.

CSV and JSON Lines are read line by line, so that a position holds the offset of the next line and
going on costs nothing; Parquet goes on at the row group.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_ray.config.labelling import CarriedColumn
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.sources.blobs import SourceFile
from cifar_ray.prediction.sources.parquet import is_text

URI = "uri"
MAX_LINE_BYTES = 2**20
BATCH_ROWS = 4096
TYPED_ROWS = 1000
"""First rows of JSON Lines, from which the types of their columns are told."""
_DELIMITERS = (",", ";", "\t")
_DAMAGE = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its number from 1, what it says, and where the listing goes on behind it."""

    number: int
    uri: object
    carried: tuple[object, ...]
    position: str


RowReader = Callable[[SourceFile, Sequence[CarriedColumn], str | None], Iterator[Row]]
"""Yields the rows behind a position; all of them with None. Raises `InputError` with the row."""


def csv_rows(
    source: SourceFile, columns: Sequence[CarriedColumn], after: str | None
) -> Iterator[Row]:
    """Read comma-separated values with a header; a semicolon or a tab separates as well."""
    with source.open() as file:
        lines = _Lines(source, file)
        header, delimiter = _csv_header(lines)
        wanted = [header.index(name) for name in (URI, *(column.name for column in columns))]
        number = lines.go_on(after)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            number += 1
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise wrong(source, number, f"is no CSV: {error}") from error
            if fields is None:
                return
            if not fields:  # an empty line
                continue
            if len(fields) != len(header):
                raise wrong(source, number, f"has {len(fields)} fields, the header {len(header)}")
            uri, *carried = (fields[index] for index in wanted)
            yield Row(number, uri, tuple(carried), f"{number}:{lines.at}")


def jsonl_rows(
    source: SourceFile, columns: Sequence[CarriedColumn], after: str | None
) -> Iterator[Row]:
    """Read one JSON object a line."""
    with source.open() as file:
        lines = _Lines(source, file)
        before = lines.go_on(after)
        for number, line in enumerate(lines, before + 1):
            if not line.strip():
                continue
            record = _json_object(source, number, line)
            carried = tuple(_typed(source, number, record, column) for column in columns)
            yield Row(number, record.get(URI), carried, f"{number}:{lines.at}")


def parquet_rows(
    source: SourceFile, columns: Sequence[CarriedColumn], after: str | None
) -> Iterator[Row]:
    """Read a Parquet file, some thousand rows at a time."""
    start = int(after) if after else 0
    number = 0
    names = [URI, *(column.name for column in columns)]
    try:
        with source.open() as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            for group in range(file.metadata.num_row_groups):
                num_rows = file.metadata.row_group(group).num_rows
                if number + num_rows <= start:
                    number += num_rows
                    continue
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=names):
                    values = [batch.column(name).to_pylist() for name in names]
                    for uri, *carried in zip(*values, strict=True):
                        number += 1
                        if number > start:
                            yield Row(number, uri, tuple(carried), str(number))
    except _DAMAGE as error:
        raise wrong(source, number + 1, "cannot be read: the file is damaged") from error


def csv_columns(source: SourceFile) -> dict[str, pa.DataType]:
    """Return the columns; CSV knows text alone."""
    with source.open() as file:
        header, _ = _csv_header(_Lines(source, file))
    return dict.fromkeys(header, pa.string())


def jsonl_columns(source: SourceFile) -> dict[str, pa.DataType]:
    """Return the columns of the first rows, with the types of their values."""
    kinds: dict[str, set[type]] = {}
    with source.open() as file:
        for number, line in enumerate(islice(_Lines(source, file), TYPED_ROWS), 1):
            if line.strip():
                for name, value in _json_object(source, number, line).items():
                    kinds.setdefault(name, set()).add(type(value))
    return {name: _json_type(found - {type(None)}) for name, found in kinds.items()}


def parquet_columns(source: SourceFile) -> dict[str, pa.DataType]:
    """Return the columns."""
    try:
        with source.open() as file:
            schema = pq.read_schema(file)
    except _DAMAGE as error:
        raise InputError(
            f"SOURCE {printable(str(source))} is no Parquet file, or was cut. Bring a whole copy."
        ) from error
    if URI in schema.names and not is_text(schema.field(URI).type):
        raise InputError(f"SOURCE {printable(str(source))}: its column `{URI}` must hold text.")
    return {field.name: field.type for field in schema}


def wrong(source: SourceFile, number: int, what: str) -> InputError:
    """Return the error for a row; `what` goes on after its number."""
    return InputError(
        f"SOURCE {printable(str(source))}: row {number:,} {what}. Mend the manifest and start "
        "over; each row needs a `uri`."
    )


class _Lines:
    """A file's lines as text, and how many bytes of it they took."""

    def __init__(self, source: SourceFile, file: BinaryIO) -> None:
        self.source, self.file = source, file
        self.at = 0

    def go_on(self, position: str | None) -> int:
        """Go to a position; return the number of the row before it."""
        if position is None:
            return 0
        number, _, offset = position.partition(":")
        self.at = int(offset)
        self.file.seek(self.at)
        return int(number)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.file.readline(MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise self._wrong(f"is longer than {MAX_LINE_BYTES:,} bytes")
        try:
            text = line.decode("utf-8" if self.at else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise self._wrong("is not UTF-8") from error
        self.at += len(line)
        return text

    def _wrong(self, what: str) -> InputError:
        return InputError(
            f"SOURCE {printable(str(self.source))}: the line at byte {self.at:,} {what}. A "
            "manifest is UTF-8, with a row a line; write a name that is not UTF-8 as a file:// uri."
        )


def _csv_header(lines: _Lines) -> tuple[list[str], str]:
    """Return the names of the columns, and what separates them."""
    line = next(lines, "")
    for delimiter in _DELIMITERS:
        try:
            header = next(csv.reader([line], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        if URI in header:
            return header, delimiter
    names = next(csv.reader([line]), [])
    raise no_uri(lines.source, names)


def no_uri(source: SourceFile, names: Sequence[str]) -> InputError:
    """Return the error for a manifest without the column that makes it one."""
    found = ", ".join(printable(name) for name in names[:10]) or "none"
    return InputError(
        f"SOURCE {printable(str(source))} has no column `{URI}` (its columns: {found}). "
        "A manifest names an image a row in `uri`."
    )


def _json_object(source: SourceFile, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise wrong(source, number, "is no JSON") from error
    if not isinstance(record, dict):
        raise wrong(source, number, "is no JSON object")
    return record


_JSON_TYPES: dict[frozenset[type], pa.DataType] = {
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
    frozenset({str}): pa.string(),
    frozenset(): pa.string(),
}
_PYTHON_TYPES = {"bool": (bool,), "int64": (int,), "double": (int, float), "string": (str,)}


def _json_type(found: set[type]) -> pa.DataType:
    return _JSON_TYPES.get(frozenset(found), pa.struct([]))


def _typed(
    source: SourceFile, number: int, record: dict[str, Any], column: CarriedColumn
) -> object:
    """Return a carried value, if it is of the type that the first rows gave the column."""
    value = record.get(column.name)
    fits = value is None or type(value) in _PYTHON_TYPES[column.type]
    if not fits or (column.type == "int64" and value is not None and abs(value) >= 2**63):
        raise wrong(
            source,
            number,
            f"has a {printable(column.name)} that is no {column.type}, as the first rows have",
        )
    return value
