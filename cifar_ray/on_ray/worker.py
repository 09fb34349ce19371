"""A worker in Ray's actor: it labels a whole shard a call.

No pixel leaves a worker. An error of ours travels as an event, as in the local engine, because an
exception in an actor would reach the driver wrapped in several of Ray's.
"""

import os
import time
import uuid
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from cifar_ray.config.labelling import SourceReference
from cifar_ray.errors import CifarRayError, Unfinished
from cifar_ray.on_ray.board import NOTHING
from cifar_ray.prediction.classify import Classifying, Equipment
from cifar_ray.prediction.engine import MAX_DEATHS, retry_delay_s
from cifar_ray.prediction.events import (
    Progress,
    ShardDone,
    ShardReturned,
    WorkerError,
    to_line,
)
from cifar_ray.prediction.worker import PROGRESS_INTERVAL_S, equip
from cifar_ray.runs import ShardName
from cifar_ray.storage import open_store

FINISH_TIMEOUT_S = 10.0

Column = NDArray[np.object_]


class ShardWorker:
    """The class of a `map_batches` actor: rows with a shard's name in, rows with its event out."""

    def __init__(
        self, destination: str, source: SourceReference, store_timeout_s: float, board: Any
    ) -> None:
        """Load the model, once for all shards."""
        # Shards are spread over processes: more threads than that would only get in the way.
        os.environ["OMP_NUM_THREADS"] = "1"
        self.store_timeout_s = store_timeout_s
        self.board = board
        self.failures = 0
        self.equipment: Equipment | WorkerError
        try:
            self.equipment = equip(open_store(destination), source)
        except CifarRayError as error:
            self.equipment = WorkerError(str(error), error.exit_code)

    def __call__(self, batch: dict[str, Column]) -> dict[str, list[str]]:
        """Label the shard, or pass on the error that the listing ended with."""
        (shard,), (error,) = batch["shard"], batch["error"]
        return {"event": [error or to_line(self._work(shard))]}

    def _work(self, shard: str) -> ShardDone | ShardReturned | WorkerError:
        if isinstance(self.equipment, WorkerError):
            return self.equipment
        try:
            deaths = ray.get(self.board.begin.remote(shard, uuid.uuid4().hex))
            if deaths >= MAX_DEATHS:
                raise Unfinished(
                    f"A worker was lost on shard {shard}, and again each time that it was "
                    "replaced. What is done is kept; the same command goes on."
                )
            event = self._label(shard, self.equipment)
        except CifarRayError as error:
            return WorkerError(str(error), error.exit_code)
        finally:
            # Waited for, so that the driver never sees the shard on the board after its event.
            ray.wait([self.board.finish.remote(shard)], timeout=FINISH_TIMEOUT_S)
        if isinstance(event, ShardDone):
            self.failures = 0
        else:
            # Else all that is listed would pass through here while the store is away.
            time.sleep(retry_delay_s(self.failures, self.store_timeout_s))
            self.failures += 1
        return event

    def _label(self, shard: str, equipment: Equipment) -> ShardDone | ShardReturned:
        names = iter([ShardName.parse(shard)])
        reporter = _Reporter(self.board, shard)
        for event in Classifying(equipment, lambda _: next(names, None)).run():
            if not isinstance(event, Progress):
                return event
            reporter.add(event)
        raise AssertionError("a shard ends with an event of its own")


class _Reporter:
    """Writes a shard's progress on the board, at the beginning and now and then."""

    def __init__(self, board: Any, shard: str) -> None:
        self.board, self.shard = board, shard
        self.progress = NOTHING
        self.due = 0.0
        self.add(NOTHING)

    def add(self, progress: Progress) -> None:
        self.progress = self.progress.plus(progress)
        if time.monotonic() >= self.due:
            self.board.work.remote(self.shard, self.progress)
            self.due = time.monotonic() + PROGRESS_INTERVAL_S
