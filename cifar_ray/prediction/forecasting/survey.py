"""One walk over a store before a run: how much is there, how it will be cut, and some of each size.

The sample is stratified by size, since the size of its file says most of what an image costs.
"""

import heapq
import time
from collections import Counter
from dataclasses import dataclass, field

from cifar_ray.prediction.manifest import shard_size
from cifar_ray.prediction.sources import Boundary, Entry, Skipped, Source
from cifar_ray.prediction.sources.base import UNKNOWN_SIZE
from cifar_ray.prediction.sources.sampling import rank
from cifar_ray.runs import ShardName

SAMPLE = 200
MINIMUM = 5
"""Images of a stratum in the sample: fewer say too little of how they differ."""
FIXED_BYTES = 4096
"""What an image costs beside its bytes, as if in bytes, when the sample is shared out."""


@dataclass(slots=True)
class Stratum:
    """Images of one order of size: the largest has less than twice the bytes of the smallest."""

    images: int = 0
    image_bytes: int = 0
    candidates: list[tuple[int, int, int, Entry]] = field(default_factory=list)
    """A heap of those with the smallest hashes, and all of them equally likely to be there."""

    def add(self, entry: Entry, seed: int) -> None:
        """Count an image."""
        self.images += 1
        self.image_bytes += max(0, entry.size_bytes)
        first, second = rank(entry, seed)
        # The number keeps entries from being compared: a manifest may name one twice.
        candidate = (-first, -second, self.images, entry)
        push = heapq.heappushpop if len(self.candidates) == SAMPLE else heapq.heappush
        push(self.candidates, candidate)

    def drawn(self, number: int) -> list[Entry]:
        """Return so many images, at random and without repetition."""
        ordered = sorted(self.candidates, key=lambda candidate: (-candidate[0], -candidate[1]))
        return [entry for *_, entry in ordered[:number]]

    @property
    def weight(self) -> int:
        """What all of them together cost, roughly."""
        return self.image_bytes + FIXED_BYTES * self.images


@dataclass(slots=True)
class Survey:
    """What the walk has seen. Memory grows with the number of shards, not with that of images."""

    skipped: Counter[str] = field(default_factory=Counter)
    shards: list[int] = field(default_factory=list)
    """Images in each."""
    strata: dict[int, Stratum] = field(default_factory=dict)
    """By the number of bits of a size; `UNKNOWN_SIZE` where only reading tells."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def listed(self) -> int:
        """Images."""
        return sum(self.shards)

    @property
    def found(self) -> int:
        """Images, and files that are none."""
        return self.listed + self.skipped.total()

    @property
    def image_bytes(self) -> int:
        """As far as the listing tells."""
        return sum(stratum.image_bytes for stratum in self.strata.values())

    def sample(self) -> dict[int, list[Entry]]:
        """Return some 200 images by stratum: more of those that cost more, some of each."""
        total = sum(stratum.weight for stratum in self.strata.values())
        shares = {
            bits: max(MINIMUM, round(SAMPLE * stratum.weight / total))
            for bits, stratum in sorted(self.strata.items())
        }
        return {bits: self.strata[bits].drawn(number) for bits, number in shares.items()}


def survey(source: Source, images_per_shard: int | None, seed: int = 0) -> Survey:
    """List all of a store; `InputError` or `StoreUnavailable` if that fails."""
    seen = Survey()
    started, cpu_started = time.perf_counter(), time.process_time()
    for range_number in range(len(source.reference.ranges)):
        number = rows = 0
        for item in source.listing(range_number).entries(None):
            if isinstance(item, Skipped):
                seen.skipped[item.kind] += 1
                continue
            if isinstance(item, Entry):
                stratum = _order(item.size_bytes)
                seen.strata.setdefault(stratum, Stratum()).add(item, seed)
                rows += 1
            full = rows == shard_size(ShardName(range_number, number), images_per_shard)
            if full or (isinstance(item, Boundary) and rows):
                seen.shards.append(rows)
                number, rows = number + 1, 0
        if rows:
            seen.shards.append(rows)
    seen.seconds = time.perf_counter() - started
    seen.cpu_seconds = time.process_time() - cpu_started
    return seen


def _order(size_bytes: int) -> int:
    return UNKNOWN_SIZE if size_bytes == UNKNOWN_SIZE else size_bytes.bit_length()
