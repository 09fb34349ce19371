"""Rows that a shard keeps, bit for bit, when its part is written again.

That happens after a run was opened again: to retry the images that failed, or because some of a
shard's images changed or went away. All other rows are taken over from the part that is there.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_ray.config.labelling import RunRecord
from cifar_ray.prediction.part import read_footer
from cifar_ray.prediction.renewal.history import Reopening
from cifar_ray.prediction.row import OK, Outcome, row_schema
from cifar_ray.prediction.sources import Entry
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store


@dataclass(frozen=True, slots=True)
class KeptRows:
    """Rows of the part that is there, and where they go."""

    table: pa.Table
    places: dict[int, int]
    """Row of `table` by row of the shard, of the images whose rows are kept."""

    @classmethod
    def of(
        cls,
        store: Store,
        record: RunRecord,
        shard: ShardName,
        entries: list[Entry],
        reopening: Reopening,
    ) -> Self | None:
        """Return what can be kept; None if there is no part of this run."""
        footer = read_footer(store, shard)
        if footer is None or footer.run != record.digest:
            return None
        schema = row_schema(record.config, record.source.carried)
        with store.open(LabellingRun.part(shard)) as file:
            table = pq.read_table(file).replace_schema_metadata(None).cast(schema)
        there = _numbered(zip(table["key"].to_pylist(), table["version"].to_pylist(), strict=True))
        rows = {image: row for row, image in enumerate(there)}
        if reopening.reason == "retry-failed":
            failed = [status != OK for status in table["status"].to_pylist()]
            rows = {image: row for image, row in rows.items() if not failed[row]}
        now = _numbered((entry.key, entry.version) for entry in entries)
        return cls(table, {at: rows[image] for at, image in enumerate(now) if image in rows})

    def outcomes(self, first_row: int, num_rows: int) -> dict[int, Outcome]:
        """Return what became of the images whose rows are kept, by how far behind the first."""
        return {
            at: self._outcome(self.places[first_row + at])
            for at in range(num_rows)
            if first_row + at in self.places
        }

    def _outcome(self, place: int) -> Outcome:
        status, num_bytes = (self.table[name][place].as_py() for name in ("status", "size_bytes"))
        return Outcome(status=status, kept=True, num_bytes=num_bytes)

    def put_into(self, table: pa.Table) -> pa.Table:
        """Return `table` with the rows that are kept in the place of its own."""
        both = pa.concat_tables([table, self.table])
        wanted = [
            table.num_rows + self.places[row] if row in self.places else row
            for row in range(table.num_rows)
        ]
        return both.take(pa.array(wanted, pa.int64())).combine_chunks()


def _numbered(images: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, int]]:
    """Yield key and version, and how often they came before: a manifest may repeat an image."""
    seen: Counter[tuple[str, str]] = Counter()
    for image in images:
        yield *image, seen[image]
        seen[image] += 1
