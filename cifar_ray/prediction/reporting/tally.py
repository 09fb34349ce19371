"""What the rows of a run add up to, for its report: read part by part, in constant memory."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cifar_ray.prediction.part import part_names
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import Store

NUM_BINS = 20
BATCH_ROWS = 16_384
EXAMPLES_A_LABEL = 5
NUM_DOUBTFUL = 10
EXAMPLES_A_CAUSE = 3
MAX_CAUSES = 50


class Place(NamedTuple):
    """Where a row stands: a part's name, and the row's number in it."""

    part: str
    row: int


@dataclass(slots=True)
class Lowest:
    """The `size` places with the lowest values of all that were offered."""

    size: int
    heap: list[tuple[float, Place]] = field(default_factory=list)

    @property
    def limit(self) -> float:
        """A value must lie below this to be taken."""
        return -self.heap[0][0] if len(self.heap) == self.size else np.inf

    def offer(self, value: float, place: Place) -> None:
        """Take a place if its value is low enough."""
        if value < self.limit:
            push = heapq.heappushpop if len(self.heap) == self.size else heapq.heappush
            push(self.heap, (-value, place))

    def places(self) -> list[Place]:
        """Return the places, the lowest value first."""
        return [place for _, place in sorted(self.heap, key=lambda item: -item[0])]


class Tally:
    """Counts of the labelled rows, and where to find examples of them."""

    def __init__(self, num_labels: int) -> None:
        """Nothing is counted yet."""
        self.labels = np.zeros(num_labels, np.int64)
        self.score_bins = np.zeros(NUM_BINS, np.int64)
        self.doubtful = Lowest(NUM_DOUBTFUL)
        self.examples = [Lowest(EXAMPLES_A_LABEL) for _ in range(num_labels)]
        # Examples are the rows with the lowest of random numbers: all rows of a label are equally
        # likely, and the same run gives the same report.
        self.random = np.random.default_rng(0)

    def add(self, part: str, first_row: int, batch: pa.RecordBatch) -> None:
        """Count a batch of rows with the columns `label_id` and `top_scores`."""
        rows = first_row + np.flatnonzero(batch["label_id"].is_valid().to_numpy(False))
        label_ids = batch["label_id"].drop_null().to_numpy()
        scores = pc.list_element(batch["top_scores"].drop_null(), 0).to_numpy()
        self.labels += np.bincount(label_ids, minlength=len(self.labels))
        bins = np.minimum((scores * NUM_BINS).astype(np.int64), NUM_BINS - 1)
        self.score_bins += np.bincount(bins, minlength=NUM_BINS)
        for index in np.flatnonzero(scores < self.doubtful.limit):
            self.doubtful.offer(float(scores[index]), Place(part, int(rows[index])))
        self._draw_examples(part, rows, label_ids)

    def _draw_examples(
        self, part: str, rows: NDArray[np.int64], label_ids: NDArray[np.int32]
    ) -> None:
        values = self.random.random(len(rows))
        limits = np.array([lowest.limit for lowest in self.examples])
        for index in np.flatnonzero(values < limits[label_ids]):
            place = Place(part, int(rows[index]))
            self.examples[label_ids[index]].offer(float(values[index]), place)


def tally_rows(store: Store, num_labels: int) -> Tally:
    """Count all rows of `predictions/`."""
    tally = Tally(num_labels)
    for name in part_names(store):
        part, first_row = f"{LabellingRun.PREDICTIONS}/{name}", 0
        for batch in _batches(store, part, ["label_id", "top_scores"]):
            tally.add(part, first_row, batch)
            first_row += len(batch)
    return tally


@dataclass(slots=True)
class Cause:
    """Images that failed in the same way."""

    status: str
    error: str
    number: int = 0
    examples: list[str] = field(default_factory=list)
    """Keys."""


def tally_failures(store: Store) -> list[Cause]:
    """Count `failures.parquet` by status and error, the most frequent first."""
    causes: dict[tuple[str, str], Cause] = {}
    for batch in _batches(store, LabellingRun.FAILURES, ["status", "error", "key"]):
        groups = pa.table(batch).group_by(["status", "error"]).aggregate([("key", "list")])
        for group in groups.to_pylist():
            status, error, keys = group["status"], group["error"] or "", group["key_list"]
            if (status, error) not in causes and len(causes) >= MAX_CAUSES:
                error = "(others)"
            cause = causes.setdefault((status, error), Cause(status, error))
            cause.number += len(keys)
            cause.examples += keys[: EXAMPLES_A_CAUSE - len(cause.examples)]
    return sorted(causes.values(), key=lambda cause: (-cause.number, cause.status, cause.error))


def _batches(store: Store, name: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with store.open(name) as source, pq.ParquetFile(source) as file:
        yield from file.iter_batches(BATCH_ROWS, columns=columns)
