"""The Ray engine: a labelling run on Ray Data, on one machine or a cluster.

    tasks that list   a shard's name as soon as its chunk of the manifest is written   (shards.py)
    actors            a whole shard a call, from its images to its part                (worker.py)
    driver            an event a shard; what happens in between comes from a board      (board.py)

What stands in DEST is all that matters: Ray Data keeps no state of the run.
"""

import logging
import math
import queue
import re
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NoReturn

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data._internal.execution.operators import map_operator
from ray.data.block import BlockStats

from cifar_ray.config.execution import Execution
from cifar_ray.errors import CifarRayError, Unfinished
from cifar_ray.on_ray.adjusting import replaced
from cifar_ray.on_ray.board import NOTHING, POLL_INTERVAL_S, Watch, open_board
from cifar_ray.on_ray.metrics.labelling import LabellingMeter
from cifar_ray.on_ray.session import Session, ray_session
from cifar_ray.on_ray.shards import Blocks, ShardSource, listing_tasks, naming_task
from cifar_ray.on_ray.worker import ShardWorker
from cifar_ray.prediction.engine import RunEvent, StorePatience
from cifar_ray.prediction.events import (
    Event,
    Progress,
    ShardDone,
    ShardReturned,
    WorkerError,
    from_line,
)
from cifar_ray.prediction.shards import RunShards
from cifar_ray.runs import ShardName

LISTING_CPUS = 0.001
"""Of a task that lists. Each worker leaves so much of its cores, and with it room for one on every
node: where all are taken, nothing would ever be listed. Not 0, which a head without work has."""
MAX_RESTARTS = 100
"""Of one actor in a whole run; `MAX_DEATHS` bounds what a single shard may do. Each file that makes
a decoder crash costs one."""

LOG_LINES = 40
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
CAUSED = "The above exception was the direct cause of the following exception"


class RayEngine:
    """Runs `num_workers` actors; by default, as many as the cluster has cores or GPUs for.

    It joins the session in whose block it runs; else it opens one for as long as it runs.
    """

    def __init__(
        self, num_workers: int | None, store_timeout_s: float, address: str | None = None
    ) -> None:
        """Nothing starts before `run`."""
        self.num_workers = num_workers
        self.store_timeout_s = store_timeout_s
        self.address = address

    def run(self, shards: RunShards) -> Generator[RunEvent, None, None]:
        """Label every shard that has no part; the actors load the model while the listing runs."""
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        with ray_session(self.address) as session:
            meter = LabellingMeter()
            watch = Watch(open_board(), shards.num_ranges)
            with closing(self._run(shards, session, watch)) as events:
                for event in events:
                    meter.observe(event, len(watch.shards))
                    yield event

    def _run(
        self, shards: RunShards, session: Session, watch: Watch
    ) -> Generator[RunEvent, None, None]:
        patience = StorePatience(self.store_timeout_s)
        actors = actor_settings(session, self.num_workers, shards.record.execution)
        worker = (
            shards.destination,
            shards.source.without_ranges(),
            self.store_timeout_s,
            watch.board,
        )
        tasks = listing_tasks(shards, watch.board)
        while tasks:
            dataset = shard_dataset(tasks, actors, worker)
            yield from follow(dataset, watch, patience)
            yield from watch.wait()
            returned = _wait_for_returned(patience)
            tasks = [naming_task([str(shard) for shard in returned])] if returned else []


@dataclass(frozen=True, slots=True)
class ActorSettings:
    """How many actors, and what each is given."""

    number: int
    num_cpus: float
    num_gpus: float | None
    grows: bool = False
    """Further actors start on nodes that join."""


def actor_settings(
    session: Session, num_workers: int | None, execution: Execution
) -> ActorSettings:
    """Share out what there is now: workers that do not fit at once get a smaller part each.

    In a Ray of our own, where an actor that found no place would wait for ever. On a cluster those
    for which it has no core or GPU wait for nodes, which an autoscaler starts because they wait.
    """
    on_gpu = execution.device == "cuda"
    available = session.num_gpus if on_gpu else session.num_cpus / execution.threads
    number = num_workers or max(1, int(available))
    cores, gpus = float(execution.threads), 1.0
    if not session.grows:
        cores = min(cores, session.num_cpus / number)
        gpus = min(gpus, session.num_gpus / number)
    num_cpus = max(LISTING_CPUS, math.floor(1000 * cores) / 1000 - LISTING_CPUS)
    num_gpus = gpus if on_gpu else None
    return ActorSettings(number, num_cpus, num_gpus, session.grows and num_workers is None)


def shard_dataset(
    tasks: Sequence[Blocks],
    actors: ActorSettings,
    worker: tuple[Any, ...],
    worker_class: type = ShardWorker,
) -> Dataset:
    """Describe what Ray Data shall do; `worker` is what `worker_class` is made with."""
    context = DataContext.get_current().copy()
    # Else what a listing gives would be held back until it has given much, or all.
    context.target_min_block_size = context.target_max_block_size = 1
    # No limit is right for every model and every size of shard.
    context.execution_no_progress_timeout_s = -1
    context.enable_progress_bars = context.print_on_execution_start = False
    pool = ActorPoolStrategy(size=actors.number)
    if actors.grows:
        # Never fewer: Ray Data would shrink the pool for the sake of the listing's share.
        pool = ActorPoolStrategy(min_size=actors.number)
    with DataContext.current(context):
        shards = ray.data.read_datasource(
            ShardSource(tasks), override_num_blocks=len(tasks), num_cpus=LISTING_CPUS
        )
        dataset: Dataset = shards.map_batches(
            worker_class,
            batch_size=1,
            compute=pool,
            num_cpus=actors.num_cpus,
            num_gpus=actors.num_gpus,
            fn_constructor_args=worker,
            max_restarts=MAX_RESTARTS,
            # Those that fail because a node is dead, which takes the cluster some time to notice,
            # would count too. The board counts deaths.
            max_task_retries=-1,
        )
        return dataset


@dataclass(frozen=True, slots=True)
class _Ended:
    """The dataset has ended, with an error or without."""

    error: Exception | None


def follow(dataset: Dataset, watch: Watch, patience: StorePatience) -> Iterator[RunEvent]:
    """Execute a dataset and report as it goes, and what the board says in between."""
    inbox: queue.Queue[Event | _Ended] = queue.Queue()
    stop = threading.Event()
    threading.Thread(target=_execute, args=(dataset, inbox, stop), daemon=True).start()
    try:
        while True:
            yield from watch.look()
            try:
                item = inbox.get(timeout=POLL_INTERVAL_S)
            except queue.Empty:
                continue
            if isinstance(item, _Ended):
                if item.error is not None:
                    _raise(item.error, sorted(watch.shards))
                return
            yield from _report(item, watch, patience)
    finally:
        stop.set()


def _execute(dataset: Dataset, inbox: "queue.Queue[Event | _Ended]", stop: threading.Event) -> None:
    """Put events into the inbox as they come; in a thread, for Ray Data waits without end."""
    error: Exception | None = None
    # Prefetching would hold each event back until the next one is there.
    batches: Iterable[Any] = dataset.iter_batches(
        batch_size=None, batch_format="pyarrow", prefetch_batches=0
    )
    try:
        with replaced(map_operator, "to_stats", _no_stats):
            for batch in batches:
                if stop.is_set():
                    return
                for line in batch["event"].to_pylist():
                    inbox.put(from_line(line))
    except Exception as caught:  # noqa: BLE001 -- handed to the caller's thread, which raises it
        error = caught
    inbox.put(_Ended(error))


def _no_stats(metadata: object) -> list[BlockStats]:
    """Keep nothing of a block, of which Ray Data would keep statistics until the dataset ends.

    With them the driver's memory grows by every shard (ray-project/ray issue 66016).
    """
    return []


def _report(event: Event, watch: Watch, patience: StorePatience) -> Iterator[RunEvent]:
    match event:
        case ShardDone(shard=shard, footer=footer):
            patience.succeeded()
            yield from watch.ended(shard, Progress(footer.rows, footer.failed, footer.image_bytes))
            yield event
        case ShardReturned(shard=shard, reason=reason):
            yield from watch.ended(shard, NOTHING)
            yield patience.returned(ShardName.parse(shard), reason)
        case WorkerError():
            raise event.as_exception()


def _wait_for_returned(patience: StorePatience) -> list[ShardName]:
    """Return the shards that the store failed to give, once one of them is due; or none."""
    seconds = patience.seconds_to_next()
    if seconds is not None:
        time.sleep(seconds)
    # Until the next dataset has started, the others are due too.
    return patience.take_all()


def _raise(error: Exception, in_hand: Sequence[str]) -> NoReturn:
    """Raise what a failed execution means: a lost worker, or a fault of ours."""
    text = COLOURS.sub("", str(error)).strip()
    if isinstance(error, ray.exceptions.RayTaskError):
        log = "\n".join(text.split(CAUSED)[0].strip().splitlines()[-LOG_LINES:])
        raise CifarRayError(
            f"A worker failed{_on(in_hand)}. What is done is kept.\nThe end of its log:\n{log}"
        ) from error
    if isinstance(error, ray.exceptions.RayError):
        raise Unfinished(
            f"A worker was lost{_on(in_hand)}, and again each time that it was replaced. What is "
            f"done is kept; the same command goes on.\nRay says: {text.splitlines()[0]}"
        ) from error
    raise error


def _on(shards: Sequence[str]) -> str:
    return f" on shard {' or '.join(shards)}" if shards else ""
