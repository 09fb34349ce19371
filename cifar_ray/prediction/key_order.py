"""The manifest's images in the order of keys, whatever updates have added.

A range's first listing and each update's are sorted runs of shards; they are merged as they are
read, a shard of each in memory.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from operator import attrgetter

from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.sources import Entry
from cifar_ray.runs import ShardName


@dataclass(frozen=True, slots=True)
class Listed:
    """An image of the manifest, and the shard that has it."""

    entry: Entry
    shard: ShardName


def in_key_order(
    manifest: Manifest,
    names: list[ShardName],
    finish: Callable[[ShardName], None] = lambda shard: None,
) -> Iterator[Listed]:
    """Yield all images of shards of an ordered source, which are given in their own order.

    `finish` is told of each shard when the image after its last one is asked for.
    """
    runs = groupby(names, partial(_sorted_run, manifest))
    streams = [_stream(manifest, list(run), finish) for _, run in runs]
    return heapq.merge(*streams, key=lambda listed: listed.entry.key.encode())


def repeated_keys(manifest: Manifest, names: list[ShardName]) -> Iterator[tuple[Listed, Listed]]:
    """Yield what has the same key in two shards, which are given in their own order.

    A key lies in one range alone: they are read one after another, and there may be a thousand.
    """
    for _, of_range in groupby(names, attrgetter("range_number")):
        for one, other in pairwise(in_key_order(manifest, list(of_range))):
            if one.entry.key == other.entry.key:
                yield one, other


def _sorted_run(manifest: Manifest, name: ShardName) -> tuple[int, int]:
    return name.range_number, manifest.counts(name).generation


def _stream(
    manifest: Manifest, names: list[ShardName], finish: Callable[[ShardName], None]
) -> Iterator[Listed]:
    for name in names:
        for entry in manifest.entries(name):
            yield Listed(entry, name)
        finish(name)
