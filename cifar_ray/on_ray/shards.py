"""A Ray Data source of shards: tasks that run the listing and give each shard as it comes."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.context import DataContext
from ray.data.datasource import ReadTask

from cifar_ray.errors import CifarRayError
from cifar_ray.prediction.events import Listed, WorkerError, to_line
from cifar_ray.prediction.shards import RunShards
from cifar_ray.prediction.worker import PROGRESS_INTERVAL_S

SCHEMA = pa.schema([pa.field("shard", pa.string()), pa.field("error", pa.string())])
"""A block has one row: a shard's name, or the error that a listing ended with, as an event."""

Blocks = Callable[[], Iterable[pa.Table]]


class ShardSource(Datasource):
    """Blocks from functions, a task each."""

    def __init__(self, tasks: Sequence[Blocks]) -> None:
        """Each function runs somewhere on the cluster, and may be run again: with the same blocks
        in the same order, for Ray leaves out those that it has got already."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.tasks = tasks

    def estimate_inmemory_data_size(self) -> None:
        """Nobody knows before the listing ends; it is small."""

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """Return the tasks, whatever their number shall be."""
        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(task, metadata) for task in self.tasks]


def listing_tasks(shards: RunShards, board: Any) -> list[Blocks]:
    """Return a task for each range: it lists the range and gives the shards that have no part."""
    return [
        partial(_list_range, shards.only(number), number, board)
        for number in range(shards.num_ranges)
    ]


def naming_task(names: Sequence[str]) -> Blocks:
    """Return a task that gives shards which are known."""
    return partial(_give, tuple(names))


def _give(names: tuple[str, ...]) -> Iterator[pa.Table]:
    return (_block(name) for name in names)


def _list_range(shards: RunShards, number: int, board: Any) -> Iterator[pa.Table]:
    listed, due = Listed(), 0.0
    try:
        for shard in shards.in_range(number):
            listed = listed.plus(shard.images, shard.done)
            if time.monotonic() >= due:
                board.list.remote(number, listed)
                due = time.monotonic() + PROGRESS_INTERVAL_S
            if not shard.done:
                yield _block(str(shard.name))
    except CifarRayError as error:
        yield _block(None, to_line(WorkerError(str(error), error.exit_code)))
    else:
        board.list.remote(number, replace(listed, ended=True))


def _block(shard: str | None, error: str | None = None) -> pa.Table:
    return pa.table({"shard": [shard], "error": [error]}, schema=SCHEMA)
