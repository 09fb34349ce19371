"""Bringing a sealed run up to date with its source: new, changed and removed images.

    reopen   the receipt moves to `_history/`
    compare  listing and manifest, both in the order of keys, are walked side by side:
             a key that is new goes into a further shard at the end of its range; a shard with a
             key that changed or went away gets a new chunk; all this under `_update/`
    apply    when all of it is there, the chunks take their places; the old ones are kept
    label    parts that no longer fit their chunks are written again, unchanged rows bit for bit
    seal     as ever

Killed before `apply`, it begins again; killed later, it goes on. Each update's shards are in the
order of keys, so that the manifest is a few sorted runs that are merged as they are read.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cifar_ray.errors import InputError, StoreUnavailable, printable
from cifar_ray.prediction.key_order import Listed, in_key_order
from cifar_ray.prediction.manifest import (
    Manifest,
    RangeEnd,
    chunk_bytes,
    range_end_bytes,
    shard_size,
)
from cifar_ray.prediction.plan import Plan
from cifar_ray.prediction.renewal.history import Reopening, last_reopening, reopen
from cifar_ray.prediction.sources import Entry, Skipped
from cifar_ray.prediction.sources.control import ControlledListing, check_removed, check_source
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store


@dataclass(slots=True)
class Changes:
    """What an update found."""

    new: int = 0
    changed: int = 0
    removed: int = 0


def update_manifest(plan: Plan, still_ours: Callable[[], None]) -> Changes:
    """Compare the source with the manifest of a sealed run, and bring the manifest up to date.

    Raises `InputError` for a run that cannot be brought up to date, `StoreUnavailable` if the
    source has no image left. DEST's lease is held.
    """
    record, store = plan.record, plan.store
    if not record.source.ordered:
        raise InputError(
            f"--update is for folders and buckets; this run's source is a {record.source.kind}, "
            "which is labelled as it is. Label the new one into another --out."
        )
    if record.config.partial:
        raise InputError(
            "--update needs a run over all of the source, without --limit or --sample."
        )
    _refuse_nothing(plan)
    reopening = reopen(store, "update")
    store.delete(LabellingRun.UPDATE)
    manifest = Manifest(store, record.config.images_per_shard)
    changes = Changes()
    for range_number in range(len(record.source.ranges)):
        _Comparison(plan, manifest, range_number, changes).run()
    still_ours()
    store.write(LabellingRun.UPDATE_COMPLETE, json.dumps({"reopening": reopening.number}).encode())
    apply_update(store)
    return changes


def _refuse_nothing(plan: Plan) -> None:
    """Raise `StoreUnavailable` if all images are gone: that is an unplugged disk, not an update."""
    reference = plan.source.reference
    check_source(reference)
    for range_number in range(len(reference.ranges)):
        for item in plan.source.listing(range_number).entries(None):
            if isinstance(item, Entry):
                return
    raise StoreUnavailable(
        f"SOURCE {printable(reference.uri)} holds no image any more, so that --update would drop "
        "every row of the run. Bring the images back and give the same command again. If all of "
        f"them were meant to go, delete {printable(plan.store.uri)}: nothing would be left in it."
    )


def apply_update(store: Store) -> None:
    """Let the files of a complete comparison take their places; nothing happens without one."""
    reopening = last_reopening(store)
    if reopening is None or not store.exists(LabellingRun.UPDATE_COMPLETE):
        return
    for name in store.names(LabellingRun.UPDATE):
        staged = LabellingRun.update(name)
        if staged != LabellingRun.UPDATE_COMPLETE:
            _replace(store, reopening, staged, f"{LabellingRun.MANIFEST}/{name}")
    store.delete(LabellingRun.UPDATE)


def _replace(store: Store, reopening: Reopening, staged: str, name: str) -> None:
    reopening.keep(store, name)
    store.move(staged, name)


class _Comparison:
    """One range's listing beside its manifest."""

    def __init__(self, plan: Plan, manifest: Manifest, range_number: int, changes: Changes) -> None:
        self.store = plan.store
        self.manifest = manifest
        self.listing = ControlledListing(plan.source.listing(range_number), plan.source.reference)
        self.range_number = range_number
        self.changes = changes
        self.names = manifest.existing(range_number)
        # Not the reopening's number: an update may be given again before its first one is sealed.
        last = manifest.counts(self.names[-1]).generation if self.names else 0
        self.generation = last + 1
        self.following = ShardName(range_number, self.names[-1].number + 1 if self.names else 0)
        self.new: list[Entry] = []
        self.now: dict[ShardName, list[Entry]] = {}
        """The images that the shards in hand have now."""
        self.touched: set[ShardName] = set()
        self.counted = _Counts()

    def run(self) -> None:
        """Write the range's new chunks below `_update/`."""
        before = in_key_order(self.manifest, self.names, self._finish)
        there = next(before, None)
        skipped: Counter[str] = Counter()
        found = 0
        for item in self.listing.entries(None):
            if isinstance(item, Skipped):
                found += 1
                skipped[item.kind] += 1
            if not isinstance(item, Entry):
                continue
            found += 1
            while there is not None and _before(there.entry, item):
                self._removed(there)
                there = next(before, None)
            if there is not None and there.entry.key == item.key:
                self._kept(there, item)
                there = next(before, None)
            else:
                self._add(item)
        while there is not None:
            self._removed(there)
            there = next(before, None)
        if self.new:
            self._write(self.following, self.new, self.generation)
        self._write_end(found, skipped)

    def _kept(self, there: Listed, item: Entry) -> None:
        changed = there.entry.version != item.version
        self.changes.changed += changed
        if changed:
            self.touched.add(there.shard)
        self.now.setdefault(there.shard, []).append(item if changed else there.entry)

    def _removed(self, there: Listed) -> None:
        check_removed(self.listing.reference, there.entry)
        self.changes.removed += 1
        self.touched.add(there.shard)
        self.now.setdefault(there.shard, [])

    def _add(self, item: Entry) -> None:
        self.changes.new += 1
        self.new.append(item)
        if len(self.new) == shard_size(self.following, self.manifest.images_per_shard):
            self._write(self.following, self.new, self.generation)
            self.following = ShardName(self.range_number, self.following.number + 1)
            self.new = []

    def _finish(self, shard: ShardName) -> None:
        """All keys of a shard have been compared."""
        entries = self.now.pop(shard, [])
        counts = self.manifest.counts(shard)
        if shard in self.touched:
            self.touched.discard(shard)
            self._write(shard, entries, counts.generation)
        else:
            self.counted.add(counts.found, counts.skipped)

    def _write(self, shard: ShardName, entries: list[Entry], generation: int) -> None:
        self.counted.add(len(entries), {})
        data = chunk_bytes(entries, RangeEnd(len(entries), {}), generation)
        name = LabellingRun.manifest_chunk(shard).split("/")[-1]
        self.store.write(LabellingRun.update(name), data)

    def _write_end(self, found: int, skipped: Counter[str]) -> None:
        """Let chunks and end add up to what is there now, whichever chunk counted what."""
        rest = {
            kind: skipped[kind] - self.counted.skipped[kind]
            for kind in sorted({*skipped, *self.counted.skipped})
            if skipped[kind] != self.counted.skipped[kind]
        }
        end = RangeEnd(found - self.counted.found, rest)
        name = LabellingRun.range_end(self.range_number).split("/")[-1]
        self.store.write(LabellingRun.update(name), range_end_bytes(end))


@dataclass(slots=True)
class _Counts:
    found: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, found: int, skipped: dict[str, int]) -> None:
        self.found += found
        self.skipped.update(skipped)


def _before(first: Entry, second: Entry) -> bool:
    return first.key.encode() < second.key.encode()
