"""The manifest: the listing cut into shards, a chunk each, created once and never changed.

A chunk also counts what was found and skipped since the chunk before it, so that a listing that
goes on behind its last image still adds up.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_ray.config.labelling import CarriedColumn
from cifar_ray.errors import CifarRayError
from cifar_ray.prediction.chunk import CARRIED, METADATA, Chunk, ShardCounts, read_chunk
from cifar_ray.prediction.sources import Entry, Listing, Skipped
from cifar_ray.prediction.sources.columns import arrow_type
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store

GROWING_SIZES = ((8, 128), (32, 512), (256, 2048))
FULL_SIZE = 16_384


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
class RangeEnd:
    """What was found and skipped behind a range's last image; it says that all of it is listed.

    After an update the numbers may be negative: chunks that did not change keep their counts, and
    the end makes up for the difference.
    """

    found: int
    skipped: dict[str, int]


def chunk_bytes(
    entries: list[Entry],
    counted: RangeEnd,
    generation: int = 0,
    carried: Sequence[tuple[str, pa.DataType]] = (),
) -> bytes:
    """Return a chunk's file; `counted` is what was found and skipped since the chunk before it."""
    chunk = Chunk.of(entries, carried)
    counts = ShardCounts(
        rows=len(entries),
        digest=chunk.digest,
        found=counted.found,
        skipped=counted.skipped,
        cursor=entries[-1].cursor if entries else "",
        generation=generation,
    )
    return chunk.to_bytes(counts)


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
        # Counted up to the chunk's last image and no further: there a listing goes on.
        skipped, behind = Counter[str](), Counter[str]()
        size = shard_size(name, self.images_per_shard)
        for item in listing.entries(cursor):
            if isinstance(item, Skipped):
                behind[item.kind] += 1
                continue
            if isinstance(item, Entry):
                entries.append(item)
                if behind:
                    skipped.update(behind)
                    behind.clear()
                if len(entries) < size:
                    continue
            if entries:  # The chunk is full, or a boundary ends it.
                if self._overtaken(name):
                    return
                created = self._create(name, entries, skipped)
                yield name
                following = ShardName(name.range_number, name.number + 1)
                if not created:
                    # Another run listed this shard first: what it found holds, and we go on there.
                    yield from self._list(following, listing, self.counts(name).cursor)
                    return
                name, entries, skipped = following, [], Counter()
                size = shard_size(name, self.images_per_shard)
        if entries and not self._overtaken(name):
            self._create(name, entries, skipped)
            yield name
        end = RangeEnd(behind.total(), dict(behind))
        self.store.create(LabellingRun.range_end(name.range_number), range_end_bytes(end))

    def _overtaken(self, name: ShardName) -> bool:
        """Tell whether another run has listed the range to its end, without a shard of this name.

        It did so while we were paused; what is new in the source since is for an update.
        """
        ended = self.store.exists(LabellingRun.range_end(name.range_number))
        return ended and not self.store.exists(LabellingRun.manifest_chunk(name))

    def _create(self, name: ShardName, entries: list[Entry], skipped: Counter[str]) -> bool:
        end = RangeEnd(len(entries) + skipped.total(), dict(skipped))
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

    def chunk(self, shard: ShardName) -> Chunk:
        """Return a shard's images as columns."""
        name = LabellingRun.manifest_chunk(shard)
        with self.store.open(name) as file, _undamaged(name):
            return read_chunk(file)

    def entries(self, shard: ShardName) -> list[Entry]:
        """Return a shard's images, in order."""
        return self.chunk(shard).entries()

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
