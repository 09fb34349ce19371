"""One shard of a sealed run: its chunk of the manifest and its part, held against each other."""

import hashlib
import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cifar_ray.prediction.chunk import ShardCounts
from cifar_ray.prediction.manifest import DamagedListing, Manifest
from cifar_ray.prediction.part import PartFooter, read_footer
from cifar_ray.prediction.sealing import fits
from cifar_ray.prediction.sources.base import UNKNOWN_SIZE
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store

CHUNK_COLUMNS = ("key", "version", "size_bytes")
PART_COLUMNS = (*CHUNK_COLUMNS, "shard", "status")
SHARED_COLUMNS = ("key", "version")
"""Columns that a part has from its chunk; the size too, where the listing knows it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in DEST that is not as it was sealed."""

    where: str
    """A shard, or a file of the run."""
    what: str
    part: str | None = None
    """The file in `predictions/` that is not good."""
    chunk: ShardName | None = None
    """The shard whose listing is not good."""
    range_end: int | None = None
    """The range whose end is not good."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the index says of a part."""

    sha256: bytes
    manifest_sha256: bytes


@dataclass(frozen=True, slots=True)
class ShardLook:
    """What a look at one shard gave."""

    counts: ShardCounts | None
    footer: PartFooter | None
    chunk_sha256: str
    first_key: str | None
    last_key: str | None
    differences: list[Difference]


def look_at_shard(
    store: Store,
    record_digest: str,
    manifest: Manifest,
    sealed: dict[ShardName, Sealed],
    name: ShardName,
) -> ShardLook:
    """Hold a part against its chunk, and both against what was sealed."""
    differences: list[Difference] = []
    expected = sealed.get(name)
    chunk_bytes = _read(store, LabellingRun.manifest_chunk(name))
    chunk = _table(chunk_bytes, CHUNK_COLUMNS)
    if chunk is None or (expected and _sha256(chunk_bytes) != expected.manifest_sha256):
        what = "its listing is missing" if chunk_bytes is None else "its listing was changed"
        differences.append(Difference(str(name), what, chunk=name))
    elif sealed and expected is None:
        differences.append(Difference(str(name), "was not sealed with the run", chunk=name))
    part_file = LabellingRun.part(name)
    part_bytes = _read(store, part_file)
    part = _table(part_bytes, PART_COLUMNS)
    footer = read_footer(store, name)
    if part is None or footer is None:
        missing = part_bytes is None
        what = "its part is missing" if missing else "its part is damaged"
        differences.append(Difference(str(name), what, part=None if missing else part_file))
        return ShardLook(None, None, _hex(chunk_bytes), None, None, differences)
    if expected and _sha256(part_bytes) != expected.sha256:
        differences.append(Difference(str(name), "its part was changed", part=part_file))
    if chunk is None:
        return ShardLook(None, footer, _hex(chunk_bytes), None, None, differences)
    try:
        counts = manifest.counts(name)
        wrong = _contents(name, record_digest, manifest, counts, chunk, part, footer)
    except DamagedListing:
        counts, wrong = None, None
        differences.append(Difference(str(name), "its listing is damaged", chunk=name))
    if wrong is not None and not differences:
        differences.append(Difference(str(name), wrong, part=part_file))
    keys = chunk["key"]
    first, last = (keys[0].as_py(), keys[-1].as_py()) if len(keys) else (None, None)
    return ShardLook(counts, footer, _hex(chunk_bytes), first, last, differences)


def look_at_open_shard(
    store: Store, record_digest: str, manifest: Manifest, name: ShardName
) -> ShardLook:
    """Hold a part against its chunk, in a run that is not sealed.

    A part that is missing, out of date or another's is no difference: the run does it again.
    """
    chunk_bytes = _read(store, LabellingRun.manifest_chunk(name))
    chunk = _table(chunk_bytes, CHUNK_COLUMNS)
    missing = "its listing is missing" if chunk_bytes is None else "its listing is damaged"
    bad_chunk = ShardLook(
        None, None, _hex(chunk_bytes), None, None, [Difference(str(name), missing, chunk=name)]
    )
    if chunk is None:
        return bad_chunk
    try:
        counts = manifest.counts(name)
        if manifest.chunk(name).digest != counts.digest:
            return bad_chunk
    except DamagedListing:
        return bad_chunk
    footer = read_footer(store, name)
    if footer is None or not fits(footer, record_digest, name, counts):
        return ShardLook(counts, None, _hex(chunk_bytes), None, None, [])
    part_file = LabellingRun.part(name)
    part = _table(_read(store, part_file), PART_COLUMNS)
    wrong = (
        "its part is damaged"
        if part is None
        else _contents(name, record_digest, manifest, counts, chunk, part, footer)
    )
    differences = [] if wrong is None else [Difference(str(name), wrong, part=part_file)]
    return ShardLook(counts, footer, _hex(chunk_bytes), None, None, differences)


def _contents(
    name: ShardName,
    record_digest: str,
    manifest: Manifest,
    counts: ShardCounts,
    chunk: pa.Table,
    part: pa.Table,
    footer: PartFooter,
) -> str | None:
    """Return what is wrong with a part's rows, or None."""
    if not fits(footer, record_digest, name, counts):
        return "its part is of another run, another shard or another listing"
    if manifest.chunk(name).digest != counts.digest:
        return "its listing does not hold the images that it says"
    known = pc.not_equal(chunk["size_bytes"], UNKNOWN_SIZE)
    sizes = part["size_bytes"].filter(known).equals(chunk["size_bytes"].filter(known))
    if not sizes or any(not part[name].equals(chunk[name]) for name in SHARED_COLUMNS):
        return "its rows are not those of its listing"
    if set(part["shard"].unique().to_pylist()) - {str(name)}:
        return "it holds rows of another shard"
    statuses = {
        entry["values"]: entry["counts"] for entry in part["status"].value_counts().to_pylist()
    }
    if statuses != footer.counts:
        return "its statuses are not those that it counts"
    return None


def _read(store: Store, name: str) -> bytes | None:
    try:
        return store.read(name)
    except FileNotFoundError:
        return None


def _table(data: bytes | None, columns: tuple[str, ...]) -> pa.Table | None:
    """Return a file's rows; None if it cannot be read, or has lost a column."""
    if data is None:
        return None
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError):
        return None
    return table if set(columns) <= set(table.column_names) else None


def _sha256(data: bytes | None) -> bytes:
    return hashlib.sha256(data or b"").digest()


def _hex(data: bytes | None) -> str:
    return _sha256(data).hex()
