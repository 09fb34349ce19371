"""Proof that a sealed run is whole, from DEST alone: no model, no source.

    receipt             its own digest, and those of the files that it names
    each shard          chunk and part are the bytes that were sealed; the part is of this run and
                        of this chunk; its rows are the chunk's images, in order; statuses add up
    the folder          holds no part that nobody listed, and nothing else
    the keys            none twice, where the source is one that names a file once
    the sums            rows, statuses and skipped files are the receipt's

Shards are read side by side, a few at a time, so that memory does not grow with their number.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pyarrow.parquet as pq

from cifar_ray.config.labelling import RunRecord
from cifar_ray.errors import InputError, Unfinished, VerificationFailed, printable
from cifar_ray.prediction.key_order import repeated_keys
from cifar_ray.prediction.manifest import DamagedListing, Manifest
from cifar_ray.prediction.parallel import in_parallel
from cifar_ray.prediction.plan import read_record
from cifar_ray.prediction.receipt import Receipt, read_receipt
from cifar_ray.prediction.repeats import count_repeated
from cifar_ray.prediction.row import OK
from cifar_ray.prediction.verification.shard_check import (
    Difference,
    Sealed,
    ShardLook,
    look_at_open_shard,
    look_at_shard,
)
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store
from cifar_ray.storage.digests import file_digest


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found."""

    record: RunRecord
    receipt: Receipt | None
    rows: int
    parts: int
    differences: tuple[Difference, ...]


@dataclass(slots=True)
class _Sums:
    rows: int = 0
    parts: int = 0
    found: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    readable: list[ShardName] = field(default_factory=list)
    """Shards whose listing is good."""
    manifest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, name: ShardName, look: ShardLook) -> None:
        if look.counts is not None:
            self.found += look.counts.found
            self.skipped += sum(look.counts.skipped.values())
        if look.footer is not None:
            self.parts += 1
            self.rows += look.footer.rows
            self.statuses.update(look.footer.counts)
        self.manifest.update(f"{name} {look.chunk_sha256}\n".encode())


def verify(store: Store, on_shard: Callable[[int], None], open_too: bool = False) -> Verified:
    """Look at everything in DEST; `on_shard` is told how many rows each shard has.

    Raises `InputError` where there is no run, `VerificationFailed` for one whose record is lost,
    `Unfinished` for one that is not sealed; with `open_too`, for which its lease is to be held,
    what is there of that is looked at.
    """
    record = _record(store)
    try:
        receipt = read_receipt(store)
    except InputError:
        damaged = Difference(LabellingRun.RECEIPT, "is damaged, or of another version")
        return Verified(record, None, 0, 0, (damaged,))
    manifest = Manifest(store, record.config.images_per_shard)
    numbers = range(len(record.source.ranges))
    listed = {name for number in numbers for name in manifest.existing(number)}
    if receipt is None:
        if open_too:
            return _verify_open(manifest, listed, record, on_shard)
        raise Unfinished(
            f"{printable(store.uri)} is not sealed: the run is still going on, or was interrupted. "
            "Give the predict command again to finish it."
        )
    differences = list(_files(store, record, receipt))
    sums = _Sums()
    differences += _shards(manifest, listed, record, receipt, sums, on_shard)
    differences += _strangers(store, listed)
    differences += _totals(manifest, record, receipt, sums)
    return Verified(record, receipt, sums.rows, sums.parts, tuple(differences))


def _record(store: Store) -> RunRecord:
    try:
        record = read_record(store)
    except InputError:
        # A receipt of this version is that of a record of this version.
        if _has_receipt(store):
            raise _record_lost(store, "is damaged") from None
        raise
    if record is not None:
        return record
    if store.names(LabellingRun.MANIFEST):
        raise _record_lost(store, "is missing")
    raise InputError(f"{printable(store.uri)} holds no labelling run: there is no run.json.")


def _has_receipt(store: Store) -> bool:
    try:
        return read_receipt(store) is not None
    except InputError:
        return False


def _record_lost(store: Store, what: str) -> VerificationFailed:
    return VerificationFailed(
        f"{printable(store.uri)}/{LabellingRun.RECORD} {what}, and nothing else says what the run "
        "is. Put it back from a copy, or label everything again with --fresh."
    )


def _verify_open(
    manifest: Manifest, listed: set[ShardName], record: RunRecord, on_shard: Callable[[int], None]
) -> Verified:
    """Look at what is there of a run that is not sealed: none of it may be damaged."""
    last = {name.range_number: name.number for name in sorted(listed)}
    expected = [ShardName(number, at) for number in last for at in range(last[number] + 1)]
    differences = [
        Difference(LabellingRun.range_end(number), "is damaged", range_end=number)
        for number in range(len(record.source.ranges))
        if _is_damaged(manifest, number)
    ]
    look_at = partial(look_at_open_shard, manifest.store, record.digest, manifest)
    rows = parts = 0
    for _, look in in_parallel(look_at, expected):
        differences += look.differences
        if look.footer is not None:
            rows, parts = rows + look.footer.rows, parts + 1
            on_shard(look.footer.rows)
    return Verified(record, None, rows, parts, tuple(differences))


def _is_damaged(manifest: Manifest, range_number: int) -> bool:
    try:
        manifest.range_end(range_number)
    except DamagedListing:
        return True
    return False


def _files(store: Store, record: RunRecord, receipt: Receipt) -> Iterator[Difference]:
    if receipt.digest != receipt.own_digest():
        yield Difference(LabellingRun.RECEIPT, "was changed since it was written")
    if receipt.run_digest != record.digest:
        yield Difference(LabellingRun.RECORD, "is not the one of the run that was sealed")
    expected = {**receipt.files, LabellingRun.PARTS_INDEX: receipt.parts_digest}
    for name, sha256 in expected.items():
        try:
            if file_digest(store, name).sha256.hex() != sha256:
                yield Difference(name, "was changed since it was written")
        except FileNotFoundError:
            yield Difference(name, "is missing")


def _shards(
    manifest: Manifest,
    listed: set[ShardName],
    record: RunRecord,
    receipt: Receipt,
    sums: _Sums,
    on_shard: Callable[[int], None],
) -> Iterator[Difference]:
    """Look at every shard that was sealed or is listed now."""
    sealed = _index(manifest.store, receipt)
    look_at = partial(look_at_shard, manifest.store, record.digest, manifest, sealed)
    before: dict[int, bytes] = {}
    for name, look in in_parallel(look_at, sorted(listed | set(sealed))):
        sums.add(name, look)
        on_shard(look.footer.rows if look.footer else 0)
        yield from look.differences
        if all(found.chunk is None for found in look.differences):
            sums.readable.append(name)
        if record.source.ordered and look.counts and look.first_key and look.last_key:
            # Each update lists its own images in order.
            earlier = before.get(look.counts.generation)
            if earlier is not None and look.first_key.encode() <= earlier:
                what = "begins with a key that does not follow on the shard before it"
                yield Difference(str(name), what, chunk=name)
            before[look.counts.generation] = look.last_key.encode()
    if len(before) > 1:
        for one, other in repeated_keys(manifest, sums.readable):
            key = printable(other.entry.key)
            what = f"has a key that shard {one.shard} has too: {key}"
            yield Difference(str(other.shard), what, chunk=other.shard)


def _index(store: Store, receipt: Receipt) -> dict[ShardName, Sealed]:
    """Return what was sealed; nothing if the index itself is not good, which is said elsewhere."""
    try:
        data = store.read(LabellingRun.PARTS_INDEX)
    except FileNotFoundError:
        return {}
    if hashlib.sha256(data).hexdigest() != receipt.parts_digest:
        return {}
    table = pq.read_table(io.BytesIO(data), columns=["name", "sha256", "manifest_sha256"])
    return {
        ShardName.parse(name): Sealed(part, chunk)
        for name, part, chunk in zip(*(column.to_pylist() for column in table.columns), strict=True)
    }


def _strangers(store: Store, listed: set[ShardName]) -> Iterator[Difference]:
    """Yield files in `predictions/` that are not a listed shard's part."""
    own = {LabellingRun.part(name) for name in listed}
    for name in store.names(LabellingRun.PREDICTIONS):
        path = f"{LabellingRun.PREDICTIONS}/{name}"
        if path not in own:
            yield Difference(path, "is not a part of the run", part=path)


def _totals(
    manifest: Manifest, record: RunRecord, receipt: Receipt, sums: _Sums
) -> Iterator[Difference]:
    bad_ends = list(_range_ends(manifest, len(record.source.ranges), receipt, sums))
    yield from bad_ends
    there = {
        "found": sums.found,
        "skipped": sums.skipped,
        "listed": sums.rows,
        "ok": sums.statuses[OK],
        "parts": sums.parts,
        "repeated": count_repeated(manifest, record, sums.readable),
    }
    sealed = {
        "found": receipt.found,
        "skipped": receipt.num_skipped,
        "listed": receipt.listed,
        "ok": receipt.ok,
        "parts": receipt.parts,
        "repeated": receipt.repeated,
    }
    for name, number in there.items():
        if number != sealed[name] and not bad_ends:
            yield Difference(
                LabellingRun.RECEIPT, f"says {sealed[name]:,} {name}, there are {number:,}"
            )
    if sums.manifest.hexdigest() != receipt.manifest_digest:
        yield Difference(LabellingRun.MANIFEST, "is not the listing that was sealed")


def _range_ends(
    manifest: Manifest, num_ranges: int, receipt: Receipt, sums: _Sums
) -> Iterator[Difference]:
    """Count what lies behind each range's last image; yield the ends that are not good."""
    for range_number in range(num_ranges):
        name = LabellingRun.range_end(range_number)
        try:
            end = manifest.range_end(range_number)
        except DamagedListing:
            yield Difference(name, "is damaged", range_end=range_number)
            return
        if end is None:
            yield Difference(name, "is missing", range_end=range_number)
            return
        sums.found += end.found
        sums.skipped += sum(end.skipped.values())
    if manifest.ends_digest(num_ranges) != receipt.ends_digest:
        for range_number in range(num_ranges):
            name = LabellingRun.range_end(range_number)
            yield Difference(name, "or another file like it was changed", range_end=range_number)
