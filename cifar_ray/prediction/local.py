"""The local engine: worker processes on this machine, without Ray.

The reference that every other engine must equal byte for byte.
"""

import os
import queue
import signal
import subprocess
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace

from cifar_ray.config.labelling import SourceReference
from cifar_ray.errors import CifarRayError, Unfinished
from cifar_ray.prediction.care.watchdog import EXIT_CODE
from cifar_ray.prediction.child import module_command
from cifar_ray.prediction.engine import MAX_DEATHS, RunEvent, StorePatience
from cifar_ray.prediction.events import (
    Event,
    Listed,
    Progress,
    ShardDone,
    ShardReturned,
    WorkerError,
    WorkerReady,
    from_line,
)
from cifar_ray.prediction.shards import ListedShard
from cifar_ray.runs import ShardName

SHARDS_AHEAD = 2
"""Shards that a worker holds at a time: one in the model, the next in preparation."""
LISTED_AHEAD = 64
"""Shards that may be listed and not yet done; the listing waits when there are more."""
LOG_LINES = 40


@dataclass(slots=True)
class _Worker:
    process: "subprocess.Popen[str]"
    assigned: deque[ShardName] = field(default_factory=deque)
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))


@dataclass(frozen=True, slots=True)
class _Ended:
    """A worker's output has ended, or (with no worker) the listing has, with its error if any."""

    worker: _Worker | None
    error: Exception | None = None


_Item = tuple[_Worker, Event] | Listed | ShardName | _Ended


class LocalEngine:
    """Runs `num_workers` processes over one DEST."""

    def __init__(
        self,
        destination: str,
        source: SourceReference,
        num_workers: int,
        store_timeout_s: float,
    ) -> None:
        """Nothing starts before `run`."""
        reference = source.without_ranges().model_dump_json()
        self.command = module_command("cifar_ray.prediction.worker", destination, reference)
        self.num_workers = num_workers
        self.patience = StorePatience(store_timeout_s)
        self.inbox: queue.Queue[_Item] = queue.Queue()
        self.listed_ahead = threading.Semaphore(max(LISTED_AHEAD, 2 * SHARDS_AHEAD * num_workers))
        self.ready: deque[ShardName] = deque()
        self.workers: list[_Worker] = []
        self.deaths: Counter[ShardName] = Counter()
        self.listing = True
        self.stopped = False

    def run(self, shards: Iterable[ListedShard]) -> Generator[RunEvent, None, None]:
        """Label every shard that has no part; workers start as the listing finds work for them."""
        self.inbox, self.workers = queue.Queue(), []
        self.listing, self.stopped = True, False
        threading.Thread(target=self._list, args=(shards,), daemon=True).start()
        try:
            while not self._finished():
                yield from self._handle()
                self._assign()
        finally:
            self._stop()

    def _finished(self) -> bool:
        busy = any(worker.assigned for worker in self.workers)
        return not (self.listing or self.ready or self.patience.waiting or busy)

    def _list(self, shards: Iterable[ListedShard]) -> None:
        """Run the listing ahead of the workers, but not without bound."""
        listed = Listed()
        error: Exception | None = None
        try:
            for shard in shards:
                listed = listed.plus(shard.images, shard.done)
                if shard.done:
                    continue
                self.listed_ahead.acquire()
                if self.stopped:
                    return
                self.inbox.put(listed)
                self.inbox.put(shard.name)
            self.inbox.put(replace(listed, ended=True))
        except Exception as caught:  # noqa: BLE001 -- handed to the caller's thread, which raises it
            error = caught
        self.inbox.put(_Ended(None, error))

    def _handle(self) -> Iterator[RunEvent]:
        """Wait for something to happen, and act on it."""
        try:
            item = self.inbox.get(timeout=self.patience.seconds_to_next())
        except queue.Empty:
            shard = self.patience.due()
            if shard is not None:
                self.ready.append(shard)
            return
        if isinstance(item, Listed):
            yield item
        elif isinstance(item, ShardName):
            self.ready.append(item)
            if len(self.workers) < self.num_workers:
                self._start_worker()
        elif isinstance(item, _Ended):
            self._ended(item)
        else:
            yield from self._event(*item)

    def _event(self, worker: _Worker, event: Event) -> Iterator[RunEvent]:
        match event:
            case Progress():
                yield event
            case ShardDone():
                worker.assigned.remove(ShardName.parse(event.shard))
                self.listed_ahead.release()
                self.patience.succeeded()
                yield event
            case ShardReturned():
                shard = ShardName.parse(event.shard)
                worker.assigned.remove(shard)
                yield self.patience.returned(shard, event.reason)
            case WorkerError():
                raise event.as_exception()
            case WorkerReady():
                return

    def _ended(self, ended: _Ended) -> None:
        if ended.worker is None:
            self.listing = False
            if ended.error is not None:
                raise ended.error
            return
        worker = ended.worker
        self.workers.remove(worker)
        code = worker.process.wait()
        if worker.assigned:
            self.deaths[worker.assigned[0]] += 1
        if not worker.assigned or self.deaths[worker.assigned[0]] >= MAX_DEATHS:
            # Killed from outside is one thing; an exception of ours is another.
            killed = code < 0 or code == EXIT_CODE
            raise (Unfinished if killed else CifarRayError)(_death(worker, code))
        self.ready.extendleft(reversed(worker.assigned))
        self._start_worker()

    def _start_worker(self) -> None:
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            # Shards are spread over processes: more threads than that would only get in the way.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        worker = _Worker(process)
        self.workers.append(worker)
        threading.Thread(target=self._read_log, args=(worker,), daemon=True).start()
        threading.Thread(target=self._read_events, args=(worker,), daemon=True).start()
        self._assign()

    def _read_events(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None, "a pipe by construction"
        for line in worker.process.stdout:
            # A process killed while it wrote leaves half a line.
            if line.endswith("\n"):
                self.inbox.put((worker, from_line(line)))
        self.inbox.put(_Ended(worker))

    @staticmethod
    def _read_log(worker: _Worker) -> None:
        assert worker.process.stderr is not None, "a pipe by construction"
        worker.log.extend(line.rstrip() for line in worker.process.stderr)

    def _assign(self) -> None:
        """Give shards to the workers that have the fewest, so that small runs use them all."""
        while self.ready and self.workers:
            worker = min(self.workers, key=lambda worker: len(worker.assigned))
            if len(worker.assigned) >= SHARDS_AHEAD:
                return
            shard = self.ready.popleft()
            worker.assigned.append(shard)
            assert worker.process.stdin is not None, "a pipe by construction"
            try:
                worker.process.stdin.write(f"{shard}\n")
                worker.process.stdin.flush()
            except BrokenPipeError:
                return  # Its end is in the inbox, and gives its shards back.

    def _stop(self) -> None:
        """End every worker; a part is whole or absent whenever it is killed."""
        self.stopped = True
        self.listed_ahead.release()
        for worker in self.workers:
            worker.process.send_signal(signal.SIGTERM)
        for worker in self.workers:
            worker.process.wait()


def _death(worker: _Worker, code: int) -> str:
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    where = f" on shard {worker.assigned[0]}" if worker.assigned else " before its first shard"
    log = "\n".join(worker.log)
    return f"A worker ended{where} with {how}. What is done is kept; the same command goes on." + (
        f"\nThe end of its log:\n{log}" if log else ""
    )
