"""The manifest: the listing cut into shards, a chunk each, created once and never changed.

A chunk also counts what was found and skipped since the chunk before it, so that a listing that
goes on behind its last image still adds up.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import repeat

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_ray.config.labelling import CarriedColumn
from cifar_ray.errors import CifarRayError
from cifar_ray.prediction.sources import Boundary, Entry, Listing, Skipped
from cifar_ray.prediction.sources.columns import arrow_type
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store

GROWING_SIZES = ((8, 128), (32, 512), (256, 2048))
FULL_SIZE = 16_384
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


def shard_size(name: ShardName, images_per_shard: int | None) -> int:
    """Return how many images a shard takes; it follows from its name alone.

    The first shards are small, for early results; later ones large, for few parts.
    """
    if images_per_shard is not None:
        return images_per_shard
    if name.range_number == 0:
        for below, size in GROWING_SIZES:
            if name.number < below:
                return size
    return FULL_SIZE


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
class RangeEnd:
    """What was found and skipped behind a range's last image; it says that all of it is listed.

    After an update the numbers may be negative: chunks that did not change keep their counts, and
    the end makes up for the difference.
    """

    found: int
    skipped: dict[str, int]


def entries_digest(entries: list[Entry]) -> str:
    """SHA-256 (hex) of keys, versions, sizes and what is carried, in order."""
    digest = hashlib.sha256()
    for entry in entries:
        facts = (entry.key, entry.version, entry.size_bytes, *entry.carried)
        digest.update(("\0".join(map(str, facts)) + "\n").encode())
    return digest.hexdigest()


def chunk_bytes(
    entries: list[Entry],
    counted: RangeEnd,
    generation: int = 0,
    carried: Sequence[tuple[str, pa.DataType]] = (),
) -> bytes:
    """Return a chunk's file; `counted` is what was found and skipped since the chunk before it."""
    counts = ShardCounts(
        rows=len(entries),
        digest=entries_digest(entries),
        found=counted.found,
        skipped=counted.skipped,
        cursor=entries[-1].cursor if entries else "",
        generation=generation,
    )
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
        table = table.append_column(
            column, pa.array([entry.carried[at] for entry in entries], type_)
        )
    table = table.replace_schema_metadata({METADATA: json.dumps(asdict(counts), sort_keys=True)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def range_end_bytes(end: RangeEnd) -> bytes:
    """Return the file that ends a range."""
    return json.dumps(asdict(end), sort_keys=True).encode()


class DamagedListing(CifarRayError):
    """A file of the manifest that is not as it was written."""


class Manifest:
    """The manifest of a labelling run."""

    def __init__(
        self,
        store: Store,
        images_per_shard: int | None,
        carried: Sequence[CarriedColumn] = (),
    ) -> None:
        """`store` is DEST; `carried` are the columns that SOURCE gives, for new chunks."""
        self.store = store
        self.images_per_shard = images_per_shard
        self.carried = [(CARRIED + column.name, arrow_type(column.type)) for column in carried]

    def shards(self, range_number: int, listing: Listing) -> Iterator[ShardName]:
        """Yield the range's shards: those that exist, then those that the listing gives."""
        cursor: str | None = None
        name = ShardName(range_number, 0)
        for name in self._without_gaps(range_number):
            yield name
            name = ShardName(range_number, name.number + 1)
        if name.number:
            cursor = self.counts(ShardName(range_number, name.number - 1)).cursor
        if self.range_end(range_number) is not None:
            return
        yield from self._list(name, listing, cursor)

    def _list(self, name: ShardName, listing: Listing, cursor: str | None) -> Iterator[ShardName]:
        entries: list[Entry] = []
        counted, behind = _Counted(), _Counted()
        size = shard_size(name, self.images_per_shard)
        for item in listing.entries(cursor):
            if isinstance(item, Skipped):
                behind.add(item)
                continue
            if isinstance(item, Entry):
                behind.add(item)
                # Counted up to the chunk's last image and no further: there a listing goes on.
                behind.move_into(counted)
                entries.append(item)
            if len(entries) == size or (isinstance(item, Boundary) and entries):
                if self._overtaken(name):
                    return
                created = self._create(name, entries, counted)
                yield name
                following = ShardName(name.range_number, name.number + 1)
                if not created:
                    # Another run listed this shard first: what it found holds, and we go on there.
                    yield from self._list(following, listing, self.counts(name).cursor)
                    return
                name, entries, counted = following, [], _Counted()
                size = shard_size(name, self.images_per_shard)
        if entries and not self._overtaken(name):
            self._create(name, entries, counted)
            yield name
        end = RangeEnd(behind.found, dict(behind.skipped))
        self.store.create(LabellingRun.range_end(name.range_number), range_end_bytes(end))

    def _overtaken(self, name: ShardName) -> bool:
        """Tell whether another run has listed the range to its end, without a shard of this name.

        It did so while we were paused; what is new in the source since is for an update.
        """
        ended = self.store.exists(LabellingRun.range_end(name.range_number))
        return ended and not self.store.exists(LabellingRun.manifest_chunk(name))

    def _create(self, name: ShardName, entries: list[Entry], counted: "_Counted") -> bool:
        end = RangeEnd(counted.found, dict(counted.skipped))
        data = chunk_bytes(entries, end, carried=self.carried)
        return self.store.create(LabellingRun.manifest_chunk(name), data)

    def existing(self, range_number: int) -> list[ShardName]:
        """Return the shards of a range that are listed already, in order."""
        names = [
            ShardName.parse(name)
            for name in self.store.names(LabellingRun.MANIFEST, f"shard-{range_number:04d}-")
        ]
        return sorted(names)

    def all_existing(self, num_ranges: int) -> Iterator[ShardName]:
        """Yield the shards of all ranges that are listed already, in order.

        Raises `DamagedListing` if one is missing between them: its images would be lost.
        """
        for range_number in range(num_ranges):
            yield from self._without_gaps(range_number)

    def _without_gaps(self, range_number: int) -> list[ShardName]:
        names = self.existing(range_number)
        if _first_gap(names) is not None:
            # A folder that is read while chunks are written may show a later one alone.
            names = self.existing(range_number)
        missing = _first_gap(names)
        if missing is not None:
            raise _damaged(LabellingRun.manifest_chunk(missing), "missing")
        return names

    def range_end(self, range_number: int) -> RangeEnd | None:
        """Return what follows the range's last image; None while it is being listed."""
        name = LabellingRun.range_end(range_number)
        try:
            data = self.store.read(name)
        except FileNotFoundError:
            return None
        with _undamaged(name):
            return RangeEnd(**json.loads(data))

    def ends_digest(self, num_ranges: int) -> str:
        """SHA-256 (hex) over the files that end the ranges; `FileNotFoundError` without one."""
        digest = hashlib.sha256()
        for range_number in range(num_ranges):
            digest.update(
                hashlib.sha256(self.store.read(LabellingRun.range_end(range_number))).digest()
            )
        return digest.hexdigest()

    def counts(self, shard: ShardName) -> ShardCounts:
        """Return a chunk's counts, from its footer alone."""
        name = LabellingRun.manifest_chunk(shard)
        with self.store.open(name) as file, _undamaged(name):
            return ShardCounts(**json.loads(pq.read_schema(file).metadata[METADATA]))

    def entries(self, shard: ShardName) -> list[Entry]:
        """Return a shard's images, in order."""
        name = LabellingRun.manifest_chunk(shard)
        with self.store.open(name) as file, _undamaged(name):
            table = pq.read_table(file)
            # By way of NumPy, which makes Python's values several times as fast as Arrow itself.
            facts = [table[column].to_numpy().tolist() for column in SCHEMA.names]
            carried = [
                table[column].to_pylist()
                for column in table.column_names
                if column.startswith(CARRIED)
            ]
            # Nothing carried has no end.
            further = zip(*carried, strict=True) if carried else repeat(())
            return [
                Entry(key, version, size_bytes, locator, carried=more)
                for key, version, size_bytes, locator, more in zip(*facts, further, strict=False)
            ]

    def keys(self, shard: ShardName) -> list[str]:
        """Return a shard's keys alone, in order."""
        name = LabellingRun.manifest_chunk(shard)
        with self.store.open(name) as file, _undamaged(name):
            keys: list[str] = pq.read_table(file, columns=["key"])["key"].to_pylist()
        return keys


@contextmanager
def _undamaged(name: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # The store's fault, not the file's; Arrow's own have no number.
        raise _damaged(name, "damaged") from error


def _damaged(name: str, what: str) -> DamagedListing:
    return DamagedListing(
        f"{name} of --out is {what}. `cifar-ray verify DEST --repair` moves away what is not good; "
        "the same command then lists those images again."
    )


def _first_gap(names: Sequence[ShardName]) -> ShardName | None:
    """Return the first shard that is missing before the last one."""
    for number, name in enumerate(names):
        if name.number != number:
            return ShardName(name.range_number, number)
    return None


@dataclass(slots=True)
class _Counted:
    """How many things the listing found, and which of them it skipped."""

    found: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, item: Entry | Skipped) -> None:
        self.found += 1
        if isinstance(item, Skipped):
            self.skipped[item.kind] += 1

    def move_into(self, other: "_Counted") -> None:
        other.found += self.found
        self.found = 0
        if self.skipped:
            other.skipped.update(self.skipped)
            self.skipped.clear()
