"""How far a run is, on this machine or another, from the files in DEST alone.

Cheap whatever the size: parts and chunks are listed by name and time, which on S3 is a request a
thousand, and a few dozen of them are opened. How many rows a shard has follows from its number;
only the last one of a range, whose chunk says it, may hold fewer. Where that does not hold
(containers, runs that were updated) the mean of a sample stands for all. Failures are counted in a
sample of parts, spread evenly. `exact` opens every chunk and every part instead.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from cifar_ray.config.labelling import RunRecord
from cifar_ray.prediction.manifest import Manifest, shard_size
from cifar_ray.prediction.parallel import in_parallel
from cifar_ray.prediction.part import read_footer
from cifar_ray.prediction.reading import run_record
from cifar_ray.prediction.receipt import Receipt, read_receipt
from cifar_ray.prediction.renewal.history import last_reopening
from cifar_ray.prediction.row import OK
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store
from cifar_ray.storage.lease import holder

SAMPLE = 64
"""Files of each kind that are opened, unless all are."""
WINDOWS_S = (300.0, 3600.0)
"""The rate is that of the parts written so long before the newest; the longer time, if need be."""
ENOUGH_PARTS = 3
"""For a rate."""
SIZED_BY_NUMBER = frozenset({"folder", "s3", "manifest", "inventory"})

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Driver:
    """Whose lease DEST is under."""

    host: str
    process_id: int
    alive: bool | None
    """None for a process of another machine."""


@dataclass(frozen=True, slots=True)
class Status:
    """A run as its files show it."""

    sealed: bool
    exact: bool
    """Every file was looked at; else the numbers of images are near the truth."""
    listing_ended: bool
    images_listed: int
    """So far."""
    images_done: int
    shards_listed: int
    shards_done: int
    shards_begun: int
    """In the hands of workers, or of workers that died."""
    images_counted: int
    """That the statuses are counted of."""
    statuses: dict[str, int]
    images_per_second: float | None
    """None where too little was written of late."""
    seconds_left: float | None
    newest_part_at: str | None
    driver: Driver | None

    @property
    def failure_rate(self) -> float:
        """Share of the counted images that have no label."""
        failed = self.images_counted - self.statuses.get(OK, 0)
        return failed / self.images_counted if self.images_counted else 0.0


def run_status(store: Store, exact: bool = False) -> Status:
    """Look at a run; `InputError` if there is none."""
    record = run_record(store)
    receipt = read_receipt(store)
    return _of_sealed(receipt) if receipt is not None else _of_open(store, record, exact)


def _of_sealed(receipt: Receipt) -> Status:
    return Status(
        sealed=True,
        exact=True,
        listing_ended=True,
        images_listed=receipt.listed,
        images_done=receipt.listed,
        shards_listed=receipt.parts,
        shards_done=receipt.parts,
        shards_begun=0,
        images_counted=receipt.listed,
        statuses={OK: receipt.ok, **receipt.failed},
        images_per_second=None,
        seconds_left=0.0,
        newest_part_at=receipt.sealed_at,
        driver=None,
    )


def _of_open(store: Store, record: RunRecord, exact: bool) -> Status:
    # The parts before the chunks, so that no part is seen whose chunk is not.
    written = {
        ShardName.parse(name): seconds
        for name, seconds in store.written(LabellingRun.PREDICTIONS, "part-")
    }
    sizes = _sizes(store, record, exact)
    ended = all(
        store.exists(LabellingRun.range_end(number)) for number in range(len(record.source.ranges))
    )
    statuses = _statuses(store, sorted(written), exact)
    rate = _rate({name: (seconds, sizes.get(name, 0)) for name, seconds in written.items()})
    driver = _driver(store)
    listed = sum(sizes.values())
    done = sum(sizes.get(name, 0) for name in written)
    running = driver is not None and driver.alive is not False
    return Status(
        sealed=False,
        exact=exact,
        listing_ended=ended,
        images_listed=listed,
        images_done=done,
        shards_listed=len(sizes),
        shards_done=len(written),
        shards_begun=len(store.names(LabellingRun.MARKS)),
        images_counted=statuses.total(),
        statuses=dict(sorted(statuses.items())),
        images_per_second=rate,
        seconds_left=(listed - done) / rate if rate and ended and running else None,
        newest_part_at=_time(max(written.values())) if written else None,
        driver=driver,
    )


def _sizes(store: Store, record: RunRecord, exact: bool) -> dict[ShardName, int]:
    """Return how many images each shard has that is listed."""
    manifest = Manifest(store, record.config.images_per_shard)
    by_range = [manifest.existing(number) for number in range(len(record.source.ranges))]
    names = [name for names in by_range for name in names]
    if not exact and record.source.kind in SIZED_BY_NUMBER and last_reopening(store) is None:
        sizes = {name: shard_size(name, record.config.images_per_shard) for name in names}
        last = [names[-1] for names in by_range if names]
        return sizes | {name: counts.rows for name, counts in in_parallel(manifest.counts, last)}
    opened = in_parallel(manifest.counts, names if exact else spread(names, SAMPLE))
    known = {name: counts.rows for name, counts in opened}
    mean = round(sum(known.values()) / max(1, len(known)))
    return {name: known.get(name, mean) for name in names}


def _statuses(store: Store, done: Sequence[ShardName], exact: bool) -> Counter[str]:
    statuses: Counter[str] = Counter()
    opened = done if exact else spread(done, SAMPLE)
    for _, footer in in_parallel(partial(read_footer, store), opened):
        statuses.update(footer.counts if footer is not None else {})
    return statuses


def spread(items: Sequence[_Item], number: int) -> Sequence[_Item]:
    """Return at most so many items, evenly from the first to the last."""
    if len(items) <= number:
        return items
    return [items[round(index * (len(items) - 1) / (number - 1))] for index in range(number)]


def _rate(parts: dict[ShardName, tuple[float, int]]) -> float | None:
    """Return images a second of late, of parts by when they were written and how many they hold."""
    if not parts:
        return None
    newest = max(seconds for seconds, _ in parts.values())
    for window in WINDOWS_S:
        recent = sorted(part for part in parts.values() if part[0] >= newest - window)
        # From the oldest of them to now: a run that stands still gets slower by the second.
        seconds = max(newest, time.time()) - recent[0][0]
        if len(recent) >= ENOUGH_PARTS and seconds > 0:
            return sum(size for _, size in recent[1:]) / seconds
    return None


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _driver(store: Store) -> Driver | None:
    lease = holder(store)
    if lease is None:
        return None
    return Driver(lease.host, lease.process_id, lease.alive if lease.on_this_machine else None)
