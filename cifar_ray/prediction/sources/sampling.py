"""A part of a listing: the first N, or N drawn by seed from all of it."""

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from cifar_ray.config.labelling import SourceReference
from cifar_ray.prediction.sources.base import Entry, Fetcher, ListedItem, Listing, Skipped, Source


@dataclass(frozen=True, slots=True)
class PartOfSource:
    """A source of one range, of which only a part is listed."""

    source: Source
    limit: int | None
    sample: int | None
    seed: int

    @property
    def reference(self) -> SourceReference:
        """That of the whole."""
        return self.source.reference

    def listing(self, range_number: int) -> Listing:
        """Return the listing of the part."""
        whole = self.source.listing(range_number)
        if self.sample is not None:
            return SampledEntries(whole, self.sample, self.seed)
        if self.limit is not None:
            return FirstEntries(whole, self.limit)
        return whole

    def fetcher(self) -> Fetcher:
        """Return a reader."""
        return self.source.fetcher()

    def uri(self, entry: Entry) -> str:
        """Return the uri that opens an image."""
        return self.source.uri(entry)


@dataclass(frozen=True, slots=True)
class FirstEntries:
    """The first `limit` images of a listing; what lies behind them is not looked at."""

    listing: Listing
    limit: int

    def entries(self, after: str | None) -> Iterator[ListedItem]:
        """Yield from the beginning in any case, to know how many are left, but only what is new."""
        listed = 0
        for item in self.listing.entries(None):
            listed += isinstance(item, Entry)
            if after is None:
                yield item
            elif isinstance(item, Entry) and item.cursor == after:
                after = None
            if listed == self.limit:
                return


@dataclass(frozen=True)
class SampledEntries:
    """`size` images of a listing, all equally likely, in the listing's order.

    Those with the smallest hash of seed and key are taken, so that the sample follows from the
    listing alone. Images left out are counted as skipped.
    """

    listing: Listing
    size: int
    seed: int

    def entries(self, after: str | None) -> Iterator[ListedItem]:
        """List the images; the first call lists all once more, to find the dividing hash."""
        for item in self.listing.entries(after):
            if isinstance(item, Entry) and rank(item, self.seed) > self._largest:
                item = Skipped("(not in the sample)")
            yield item

    @cached_property
    def _largest(self) -> tuple[int, int]:
        """The largest rank in the sample. Memory grows with the sample, not with the store."""
        heap: list[tuple[int, int]] = []
        for item in self.listing.entries(None):
            if isinstance(item, Entry):
                first, second = rank(item, self.seed)
                heapq.heappush(heap, (-first, -second))
                if len(heap) > self.size:
                    heapq.heappop(heap)
        return (-heap[0][0], -heap[0][1]) if heap else (-1, -1)


def rank(entry: Entry, seed: int) -> tuple[int, int]:
    """Rank by key, so that every form of a store gives the same sample; equal keys by place."""
    return _hash(entry.key, seed), _hash(entry.cursor, seed)


def _hash(text: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}\0{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
