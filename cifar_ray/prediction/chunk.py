"""A chunk of the manifest: the images of one shard, as columns, and what it says of the listing."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cifar_ray.prediction.sources import Entry

METADATA = b"cifar_ray.shard"
CARRIED = "carried."
"""Stands before the names of columns that are SOURCE's own."""
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("locator", pa.binary()),
    ]
)
_COLUMNS = [(field.name, field.type) for field in SCHEMA]


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """What a chunk says of the listing; `found` and `skipped` since the chunk before it."""

    rows: int
    digest: str
    found: int
    skipped: dict[str, int]
    cursor: str
    """Where the listing goes on behind the chunk."""
    generation: int = 0
    """Which update of its range added the shard; 0: it was there before."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A shard's images in order: the columns of `SCHEMA`, and behind them those carried."""

    table: pa.Table

    @classmethod
    def of(cls, entries: Sequence[Entry], carried: Sequence[tuple[str, pa.DataType]] = ()) -> Self:
        """Make columns of images; `carried` are names and types of what each of them carries."""
        table = pa.table(
            {
                "key": [entry.key for entry in entries],
                "version": [entry.version for entry in entries],
                "size_bytes": [entry.size_bytes for entry in entries],
                "locator": [entry.locator for entry in entries],
            },
            schema=SCHEMA,
        )
        for at, (column, type_) in enumerate(carried):
            values = pa.array([entry.carried[at] for entry in entries], type_)
            table = table.append_column(column, values)
        return cls(table)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of keys, versions, sizes and what is carried, in order.

        Column by column: of texts their lengths (int32, little-endian) and then their bytes, of
        sizes int64; of what is carried, whatever its type, its values as Python writes them.
        """
        digest = hashlib.sha256()
        for column in self.table.column_names:
            values = self.table[column]
            if column == "size_bytes":
                digest.update(values.to_numpy().astype("<i8", copy=False).tobytes())
            elif column in ("key", "version"):
                _add_texts(digest, values)
            elif column != "locator":
                texts = [str(value) for value in values.to_pylist()]
                _add_texts(digest, pa.chunked_array([texts], pa.string()))
        return digest.hexdigest()

    def entries(self) -> list[Entry]:
        """Return the images one by one."""
        # By way of NumPy, which makes Python's values several times as fast as Arrow itself.
        facts = [self.table[column].to_numpy().tolist() for column in SCHEMA.names]
        carried = [
            self.table[column].to_pylist()
            for column in self.table.column_names
            if column.startswith(CARRIED)
        ]
        # Nothing carried has no end.
        further = zip(*carried, strict=True) if carried else repeat(())
        return list(map(Entry._make, zip(*facts, repeat(None), further, strict=False)))

    def take(self, rows: Sequence[int]) -> Self:
        """Return some of the images alone."""
        return type(self)(self.table.take(pa.array(rows, pa.int64())))

    def to_bytes(self, counts: ShardCounts) -> bytes:
        """Return the chunk as a Parquet file that holds its counts too."""
        metadata = {METADATA: json.dumps(asdict(counts), sort_keys=True)}
        buffer = pa.BufferOutputStream()
        pq.write_table(
            self.table.replace_schema_metadata(metadata),
            buffer,
            compression="zstd",
            # Hardly a value comes twice.
            use_dictionary=False,
        )
        data: bytes = buffer.getvalue().to_pybytes()
        return data


def read_chunk(data: BinaryIO) -> Chunk:
    """Read a chunk's file.

    Raises `pa.ArrowException`, `OSError` or `ValueError` for one that is not as it was written.
    """
    # Not `read_table`, which takes longer to begin than a small chunk to read.
    table = pq.ParquetFile(data).read(use_threads=False)
    if [(field.name, field.type) for field in table.schema][: len(SCHEMA)] != _COLUMNS:
        raise ValueError("other columns than a chunk has")
    return Chunk(table)


def _add_texts(digest: "hashlib._Hash", texts: pa.ChunkedArray) -> None:
    """Add lengths and bytes, which are the same in however many arrays the texts lie."""
    parts = [_offsets_and_bytes(array) for array in texts.chunks]
    for offsets, _ in parts:
        digest.update(np.diff(offsets).astype("<i4", copy=False).tobytes())
    for offsets, data in parts:
        digest.update(data[offsets[0] : offsets[-1]])


def _offsets_and_bytes(texts: pa.StringArray) -> tuple[NDArray[np.int32], memoryview]:
    """Return where each text begins, and the last one ends, in the bytes of all of them."""
    _, offsets, data = texts.buffers()
    begins = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset)
    return begins, memoryview(data)
