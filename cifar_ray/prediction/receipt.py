"""Sealing: every part's footer is read and held against the manifest, and the sums must add up."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from cifar_ray.config.labelling import RunRecord
from cifar_ray.errors import CifarRayError
from cifar_ray.prediction.manifest import Manifest, ShardCounts
from cifar_ray.prediction.part import PartFooter, read_footer
from cifar_ray.prediction.repeats import count_repeated
from cifar_ray.prediction.row import OK, row_schema
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store

RECEIPT_FORMAT = 1
MAX_KINDS = 100
READ_CHUNK_BYTES = 2**20
INDEX_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("ok", pa.int64(), nullable=False),
        pa.field("failed", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.binary(32), nullable=False),
    ]
)


class Receipt(BaseModel):
    """`receipt.json`: written last; while it stands, the run is sealed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = RECEIPT_FORMAT
    partial: dict[str, int] | None
    """`--limit` or `--sample`, where the run was meant to leave images out; `found` is then what
    was looked at."""
    found: int
    skipped: dict[str, int]
    """By extension or reason."""
    listed: int
    ok: int
    failed: dict[str, int]
    """By status."""
    repeated: int
    image_bytes: int
    parts: int
    run_digest: str
    manifest_digest: str
    parts_digest: str
    sealed_at: str

    @property
    def num_failed(self) -> int:
        """Images without a label."""
        return sum(self.failed.values())

    @property
    def num_skipped(self) -> int:
        """Files that are no images."""
        return sum(self.skipped.values())

    @property
    def failure_rate(self) -> float:
        """Share of the listed images that have no label."""
        return self.num_failed / self.listed if self.listed else 0.0

    def to_bytes(self) -> bytes:
        """Return the file."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def read_receipt(store: Store) -> Receipt | None:
    """Return the receipt of a sealed run; None if the run is open."""
    try:
        return Receipt.model_validate_json(store.read(LabellingRun.RECEIPT))
    except FileNotFoundError:
        return None


@dataclass(slots=True)
class _Sums:
    status: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    found: int = 0
    listed: int = 0
    parts: int = 0
    image_bytes: int = 0
    manifest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, counts: ShardCounts, footer: PartFooter) -> None:
        self.status.update(footer.counts)
        self.skipped.update(counts.skipped)
        self.found += counts.found
        self.listed += counts.rows
        self.parts += 1
        self.image_bytes += footer.image_bytes
        self.manifest.update(f"{footer.shard} {counts.digest}\n".encode())


def unfit_parts(store: Store, record: RunRecord, manifest: Manifest) -> list[ShardName]:
    """Return shards whose part is missing, unreadable, of another run, or of another listing."""
    return [name for name, _, footer in _checked(store, record, manifest) if footer is None]


def draw_up(store: Store, record: RunRecord, manifest: Manifest) -> Receipt:
    """Write `_parts.parquet` and `failures.parquet`; return the receipt, which seals nothing yet.

    Raises `CifarRayError` if the numbers do not add up; every part must be fit.
    """
    sums = _Sums()
    failed_parts: list[ShardName] = []
    with (
        store.staged(LabellingRun.PARTS_INDEX) as path,
        pq.ParquetWriter(path, INDEX_SCHEMA) as out,
    ):
        for batch in _batches(_index_rows(store, record, manifest, sums, failed_parts)):
            out.write_batch(pa.RecordBatch.from_pylist(batch, schema=INDEX_SCHEMA))
    for range_number in range(len(record.source.ranges)):
        end = manifest.range_end(range_number)
        if end is None:
            raise CifarRayError(f"Range {range_number} is not listed to its end.")
        sums.found += end.found
        sums.skipped.update(end.skipped)
    _write_failures(store, record, failed_parts)
    return _receipt(store, record, sums, count_repeated(manifest, record))


def seal(store: Store, receipt: Receipt) -> None:
    """Write the receipt: the last file of a run, so that all others are there when it is."""
    store.write(LabellingRun.RECEIPT, receipt.to_bytes())


def _checked(
    store: Store, record: RunRecord, manifest: Manifest
) -> Iterator[tuple[ShardName, ShardCounts, PartFooter | None]]:
    """Yield every shard with its part's footer; None for one that is not fit."""
    digest = record.digest
    for range_number in range(len(record.source.ranges)):
        for name in manifest.existing(range_number):
            counts = manifest.counts(name)
            footer = read_footer(store, name)
            if footer is not None:
                fit = (digest, counts.digest, counts.rows, str(name))
                if (footer.run, footer.shard_digest, footer.rows, footer.shard) != fit:
                    footer = None
            yield name, counts, footer


def _index_rows(
    store: Store,
    record: RunRecord,
    manifest: Manifest,
    sums: _Sums,
    failed_parts: list[ShardName],
) -> Iterator[dict[str, object]]:
    for name, counts, footer in _checked(store, record, manifest):
        if footer is None:
            raise CifarRayError(f"The part of shard {name} is not fit to be sealed.")
        sums.add(counts, footer)
        if footer.failed:
            failed_parts.append(name)
        size_bytes, digest = _file_digest(store, LabellingRun.part(name))
        yield {
            "name": LabellingRun.part(name),
            "rows": footer.rows,
            "ok": footer.rows - footer.failed,
            "failed": footer.failed,
            "size_bytes": size_bytes,
            "sha256": digest,
        }


def _batches(
    rows: Iterator[dict[str, object]], size: int = 1024
) -> Iterator[list[dict[str, object]]]:
    batch: list[dict[str, object]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_failures(store: Store, record: RunRecord, parts: list[ShardName]) -> None:
    schema = row_schema(record.config, record.source.carried)
    with store.staged(LabellingRun.FAILURES) as path, pq.ParquetWriter(path, schema) as out:
        for name in parts:
            with store.open(LabellingRun.part(name)) as file:
                table = pq.read_table(file)
            failed = table.filter(pc.not_equal(table["status"], OK))
            out.write_table(failed.replace_schema_metadata(None).cast(schema))


def _receipt(store: Store, record: RunRecord, sums: _Sums, repeated: int) -> Receipt:
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
        repeated=repeated,
        image_bytes=sums.image_bytes,
        parts=sums.parts,
        run_digest=record.digest,
        manifest_digest=sums.manifest.hexdigest(),
        parts_digest=_file_digest(store, LabellingRun.PARTS_INDEX)[1].hex(),
        sealed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _few_kinds(skipped: Counter[str]) -> dict[str, int]:
    """Keep the receipt small whatever extensions a store has."""
    kinds = dict(sorted(skipped.most_common(MAX_KINDS)))
    rest = sum(skipped.values()) - sum(kinds.values())
    return {**kinds, "(others)": rest} if rest else kinds


def _file_digest(store: Store, name: str) -> tuple[int, bytes]:
    digest, size_bytes = hashlib.sha256(), 0
    with store.open(name) as file:
        while chunk := file.read(READ_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    return size_bytes, digest.digest()
