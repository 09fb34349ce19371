"""Rows that a shard keeps, bit for bit, when its part is written again.

That happens after a run was opened again: to retry the images that failed, or because some of a
shard's images changed or went away. All other rows are taken over from the part that is there.
"""

from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_ray.config.labelling import RunRecord
from cifar_ray.prediction.history import Reopening
from cifar_ray.prediction.part import read_footer
from cifar_ray.prediction.row import OK, row_schema
from cifar_ray.prediction.sources import Entry
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store


@dataclass(frozen=True, slots=True)
class KeptRows:
    """Rows of the part that is there, and where they go."""

    table: pa.Table
    places: dict[str, int]
    """Row of `table` by key, of the images whose rows are kept."""

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
        with store.open(LabellingRun.part(shard)) as file:
            table = (
                pq.read_table(file).replace_schema_metadata(None).cast(row_schema(record.config))
            )
        retry = reopening.reason == "retry-failed"
        there = zip(
            *(table[name].to_pylist() for name in ("key", "version", "status")), strict=True
        )
        rows = {
            (key, version): row
            for row, (key, version, status) in enumerate(there)
            if status == OK or not retry
        }
        places = {
            entry.key: rows[entry.key, entry.version]
            for entry in entries
            if (entry.key, entry.version) in rows
        }
        return cls(table, places)

    def status(self, entry: Entry) -> str | None:
        """Return the status that an image keeps; None if it is to be labelled."""
        row = self.places.get(entry.key)
        if row is None:
            return None
        status: str = self.table["status"][row].as_py()
        return status

    def put_into(self, table: pa.Table) -> pa.Table:
        """Return `table` with the rows that are kept in the place of its own."""
        both = pa.concat_tables([table, self.table])
        keys = table["key"].to_pylist()
        wanted = [
            table.num_rows + self.places[key] if key in self.places else row
            for row, key in enumerate(keys)
        ]
        return both.take(pa.array(wanted, pa.int64())).combine_chunks()
