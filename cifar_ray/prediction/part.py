"""Parts: a shard's rows as one Parquet file. A part that exists is committed."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_ray.prediction.row import OK
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store

METADATA = b"cifar_ray.part"
SOON_PACKED = frozenset({"sha256", "shard", "status", "error", "width", "height", "model"})
"""Columns that a dictionary leaves little of, and digests, of which nothing makes less: to set up a
compressor for each would take longer than to write them."""
HARDLY_TWICE = frozenset(
    {
        *("key", "uri", "version", "size_bytes", "sha256", "confidence"),
        *(f"{name}.list.element" for name in ("top_scores", "probabilities", "embedding")),
    }
)
"""Columns whose values seldom come again: a dictionary of them would be given up half-way."""


@dataclass(frozen=True, slots=True)
class PartFooter:
    """What a part says of itself: whose rows it holds, and how many of each status."""

    run: str
    shard: str
    shard_digest: str
    rows: int
    counts: dict[str, int]
    image_bytes: int
    revision: int = 0
    """The reopening of the run at which it was written in place of another part; 0: it was not."""

    @property
    def failed(self) -> int:
        """How many images have no label."""
        return self.rows - self.counts.get(OK, 0)


def write_part(store: Store, table: pa.Table, footer: PartFooter) -> None:
    """Write a shard's part, whole or not at all."""
    metadata = {METADATA: json.dumps(asdict(footer), sort_keys=True)}
    buffer = pa.BufferOutputStream()
    leaves = [_leaf(field) for field in table.schema]
    pq.write_table(
        table.replace_schema_metadata(metadata),
        buffer,
        compression={leaf: "none" if leaf in SOON_PACKED else "zstd" for leaf in leaves},
        use_dictionary=[leaf for leaf in leaves if leaf not in HARDLY_TWICE],
        # So that damage is seen before a part's digest is written down: not all of it is packed.
        write_page_checksum=True,
    )
    data: bytes = buffer.getvalue().to_pybytes()
    store.write(LabellingRun.part(ShardName.parse(footer.shard)), data)


def _leaf(field: pa.Field) -> str:
    """Return the path of a column's values, as Parquet names it."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


def read_footer(store: Store, shard: ShardName) -> PartFooter | None:
    """Return a part's footer; None if there is no part, or if it is not one that we wrote whole."""
    try:
        with store.open(LabellingRun.part(shard)) as file:
            schema = pq.read_schema(file)
        return PartFooter(**json.loads(schema.metadata[METADATA]))
    except (FileNotFoundError, pa.ArrowInvalid, TypeError, KeyError, ValueError):
        return None
    except OSError as error:
        if error.errno is None:
            return None  # What Arrow says of a footer that it cannot read; the disk is well.
        raise


def committed(store: Store) -> set[ShardName]:
    """Return the shards that have a part."""
    return {ShardName.parse(name) for name in part_names(store)}


def part_names(store: Store) -> Iterator[str]:
    """Yield the names of parts, in order."""
    for name in store.names(LabellingRun.PREDICTIONS, "part-"):
        if name.endswith(".parquet"):
            yield name
