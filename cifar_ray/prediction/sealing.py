"""Sealing: every part is held against its chunk of the manifest, and the sums must add up."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cifar_ray.config.labelling import RunRecord
from cifar_ray.errors import CifarRayError
from cifar_ray.models.bundle_spec import BundleSpec
from cifar_ray.prediction.chunk import ShardCounts
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.parallel import in_parallel
from cifar_ray.prediction.part import PartFooter, committed, read_footer
from cifar_ray.prediction.receipt import Receipt
from cifar_ray.prediction.renewal.history import Reopening
from cifar_ray.prediction.repeats import count_repeated
from cifar_ray.prediction.row import OK, row_schema
from cifar_ray.prediction.suitability import doubt_warning
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store
from cifar_ray.storage.digests import FileDigest, file_digest

MAX_KINDS = 100
INDEX_BATCH = 1024
INDEX_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("ok", pa.int64(), nullable=False),
        pa.field("failed", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.binary(32), nullable=False),
        pa.field("manifest_sha256", pa.binary(32), nullable=False),
    ]
)
"""`_parts.parquet`: a row a part, in the order of shards."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What sealing reads of a shard."""

    counts: ShardCounts
    footer: PartFooter
    part: FileDigest
    chunk: FileDigest


@dataclass(slots=True)
class _Sums:
    status: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    found: int = 0
    listed: int = 0
    parts: int = 0
    image_bytes: int = 0
    first: ShardName | None = None
    manifest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, name: ShardName, facts: _Facts) -> None:
        self.status.update(facts.footer.counts)
        self.skipped.update(facts.counts.skipped)
        self.found += facts.counts.found
        self.listed += facts.counts.rows
        self.parts += 1
        self.image_bytes += facts.footer.image_bytes
        self.first = self.first or name
        self.manifest.update(f"{name} {facts.chunk.sha256.hex()}\n".encode())


def fits(footer: PartFooter, record_digest: str, name: ShardName, counts: ShardCounts) -> bool:
    """Tell whether a part is of this run, of this shard, and of this listing of it."""
    there = (footer.run, footer.shard, footer.shard_digest, footer.rows)
    return there == (record_digest, str(name), counts.digest, counts.rows)


def unfit_parts(store: Store, record: RunRecord, manifest: Manifest) -> list[ShardName]:
    """Return shards whose part is missing, unreadable, of another run, or of another listing.

    A part without a shard, which nobody listed, is among them.
    """
    fit = partial(_fit_footer, store, record.digest, manifest)
    strangers = committed(store)
    unfit = []
    for name, found in in_parallel(fit, manifest.all_existing(len(record.source.ranges))):
        strangers.discard(name)
        if found is None:
            unfit.append(name)
    return unfit + sorted(strangers)


def is_fit(store: Store, record: RunRecord, manifest: Manifest, name: ShardName) -> bool:
    """Tell whether a shard has a part that can be sealed."""
    if not store.exists(LabellingRun.manifest_chunk(name)):
        return False
    return _fit_footer(store, record.digest, manifest, name) is not None


def outdated_parts(
    store: Store, record: RunRecord, manifest: Manifest, reopening: Reopening
) -> frozenset[ShardName]:
    """Return shards whose part is to be written again since the run was opened again.

    Their listing has changed, or failed images of theirs are to be retried and were not yet.
    """
    retried_from = reopening.number if reopening.reason == "retry-failed" else 0
    look = partial(_outdated, store, record.digest, manifest, retried_from)
    shards = manifest.all_existing(len(record.source.ranges))
    return frozenset(name for name, found in in_parallel(look, shards) if found)


def _outdated(
    store: Store, record_digest: str, manifest: Manifest, retried_from: int, name: ShardName
) -> bool:
    footer = read_footer(store, name)
    if footer is None or footer.run != record_digest:
        return False
    if footer.shard_digest != manifest.counts(name).digest:
        return True
    return bool(footer.failed) and footer.revision < retried_from


def _fit_footer(
    store: Store, record_digest: str, manifest: Manifest, name: ShardName
) -> tuple[ShardCounts, PartFooter] | None:
    """Return what chunk and part say of themselves; None if the part is not fit."""
    footer = read_footer(store, name)
    if footer is None:
        return None
    counts = manifest.counts(name)
    return (counts, footer) if fits(footer, record_digest, name, counts) else None


def draw_up(
    store: Store,
    record: RunRecord,
    manifest: Manifest,
    spec: BundleSpec,
    still_ours: Callable[[], None] = lambda: None,
) -> Receipt:
    """Write `_parts.parquet` and `failures.parquet`; return the receipt, which seals nothing yet.

    Raises `CifarRayError` if the numbers do not add up; every part must be fit. `still_ours` is
    called before a file takes its place, and raises if DEST is another run's by now.
    """
    sums = _Sums()
    failed_parts: list[ShardName] = []
    rows = _index_rows(store, record, manifest, sums, failed_parts)
    with store.staged(LabellingRun.PARTS_INDEX) as path:
        with pq.ParquetWriter(path, INDEX_SCHEMA) as out:
            while batch := list(islice(rows, INDEX_BATCH)):
                out.write_batch(pa.RecordBatch.from_pylist(batch, schema=INDEX_SCHEMA))
        still_ours()
    for range_number in range(len(record.source.ranges)):
        end = manifest.range_end(range_number)
        if end is None:
            raise CifarRayError(f"Range {range_number} is not listed to its end.")
        sums.found += end.found
        sums.skipped.update(end.skipped)
    with store.staged(LabellingRun.FAILURES) as path:
        _write_failures(path, store, record, failed_parts)
        still_ours()
    receipt = _receipt(store, record, sums)
    warning = doubt_warning(store, sums.first, record, spec) if sums.first else None
    names = manifest.all_existing(len(record.source.ranges))
    return receipt.model_copy(
        update={
            "ends_digest": manifest.ends_digest(len(record.source.ranges)),
            "repeated": count_repeated(manifest, record, names),
            "warnings": (*record.warnings, *([warning] if warning else [])),
        }
    )


def _facts(store: Store, record_digest: str, manifest: Manifest, name: ShardName) -> _Facts:
    found = _fit_footer(store, record_digest, manifest, name)
    if found is None:
        raise CifarRayError(f"The part of shard {name} is not fit to be sealed.")
    part = file_digest(store, LabellingRun.part(name))
    chunk = file_digest(store, LabellingRun.manifest_chunk(name))
    return _Facts(*found, part, chunk)


def _index_rows(
    store: Store,
    record: RunRecord,
    manifest: Manifest,
    sums: _Sums,
    failed_parts: list[ShardName],
) -> Iterator[dict[str, object]]:
    look = partial(_facts, store, record.digest, manifest)
    for name, facts in in_parallel(look, manifest.all_existing(len(record.source.ranges))):
        sums.add(name, facts)
        if facts.footer.failed:
            failed_parts.append(name)
        yield {
            "name": LabellingRun.part(name),
            "rows": facts.footer.rows,
            "ok": facts.footer.rows - facts.footer.failed,
            "failed": facts.footer.failed,
            "size_bytes": facts.part.size_bytes,
            "sha256": facts.part.sha256,
            "manifest_sha256": facts.chunk.sha256,
        }


def _write_failures(path: Path, store: Store, record: RunRecord, parts: list[ShardName]) -> None:
    schema = row_schema(record.config, record.source.carried)
    with pq.ParquetWriter(path, schema) as out:
        for name in parts:
            with store.open(LabellingRun.part(name)) as file:
                table = pq.read_table(file)
            failed = table.filter(pc.not_equal(table["status"], OK))
            out.write_table(failed.replace_schema_metadata(None).cast(schema))


def _receipt(store: Store, record: RunRecord, sums: _Sums) -> Receipt:
    partial = {
        name: number
        for name, number in (("limit", record.config.limit), ("sample", record.config.sample))
        if number is not None
    }
    ok = sums.status.pop(OK, 0)
    failed = sum(sums.status.values())
    skipped = sums.skipped.total()
    if sums.found != sums.listed + skipped or sums.listed != ok + failed:
        raise CifarRayError(
            f"The rows do not add up: {sums.found} files found, {skipped} skipped, {sums.listed} "
            f"listed, {ok} labelled, {failed} failed. Nothing is sealed. Please report this with "
            "DEST's run.json."
        )
    return Receipt(
        partial=partial or None,
        found=sums.found,
        skipped=_few_kinds(sums.skipped),
        listed=sums.listed,
        ok=ok,
        failed=dict(sorted(sums.status.items())),
        image_bytes=sums.image_bytes,
        parts=sums.parts,
        run_digest=record.digest,
        manifest_digest=sums.manifest.hexdigest(),
        parts_digest=file_digest(store, LabellingRun.PARTS_INDEX).sha256.hex(),
        sealed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _few_kinds(skipped: Counter[str]) -> dict[str, int]:
    """Keep the receipt small whatever extensions a store has."""
    kinds = dict(sorted(skipped.most_common(MAX_KINDS)))
    rest = sum(skipped.values()) - sum(kinds.values())
    return {**kinds, "(others)": rest} if rest else kinds
