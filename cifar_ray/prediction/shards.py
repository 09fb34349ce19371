"""A run's shards as its listing gives them, in whichever process and on whichever machine lists."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from cifar_ray.config.labelling import RunRecord, SourceReference
from cifar_ray.prediction.manifest import Manifest, shard_size
from cifar_ray.prediction.part import committed
from cifar_ray.prediction.plan import Plan
from cifar_ray.prediction.sources import open_source
from cifar_ray.prediction.sources.control import ControlledListing
from cifar_ray.runs import ShardName
from cifar_ray.storage import open_store


@dataclass(frozen=True, slots=True)
class ListedShard:
    """A shard that the listing has come to."""

    name: ShardName
    images: int
    """That it takes; the last one of a range may hold fewer."""
    done: bool
    """It had a part before this run began."""


@dataclass(frozen=True, slots=True)
class RunShards:
    """The shards of a run; whoever iterates runs the listing.

    Made of plain values, so that it can travel to where the listing shall run. `done` does not
    change with the parts that are written meanwhile: who iterates again gets the same again.
    """

    record: RunRecord
    source: SourceReference
    destination: str
    done: frozenset[ShardName]

    @classmethod
    def of(cls, plan: Plan, again: frozenset[ShardName] = frozenset()) -> Self:
        """Look which shards have a part; those of `again` are done again all the same."""
        return cls(
            plan.record,
            plan.source.reference,
            plan.store.uri,
            frozenset(committed(plan.store) - again),
        )

    @property
    def num_ranges(self) -> int:
        """Parts of the listing that can run side by side."""
        return len(self.record.source.ranges)

    def __iter__(self) -> Iterator[ListedShard]:
        """Yield all shards, one range after another."""
        for number in range(self.num_ranges):
            yield from self.in_range(number)

    def in_range(self, number: int) -> Iterator[ListedShard]:
        """Yield one range's shards in order, each as soon as it is in the manifest."""
        size = self.record.config.images_per_shard
        manifest = Manifest(open_store(self.destination), size, self.record.source.carried)
        listing = open_source(self.source, self.record.config).listing(number)
        for name in manifest.shards(number, ControlledListing(listing, self.source)):
            yield ListedShard(name, shard_size(name, size), name in self.done)

    def only(self, number: int) -> Self:
        """Return the same with no more than `in_range(number)` needs, which makes it small."""
        done = frozenset(name for name in self.done if name.range_number == number)
        return replace(self, done=done)
