"""A run on trial: the sample of a store, labelled by as many workers at once as a run would have.

Side by side because cores that are all busy are slower than one alone, and in rounds because a
machine is not equally fast all the time: a forecast has to allow for how much rounds differ.
What a run costs beside that, from its command to the exit of its last process, no process can
measure of itself: a real run of very few images shows it.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import IO

from cifar_ray.config.labelling import RunRecord, SourceReference
from cifar_ray.errors import CifarRayError, InputError, of_exit_code, printable
from cifar_ray.models.backends import open_backend
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.cache import cache_folder
from cifar_ray.prediction.child import module_command
from cifar_ray.prediction.events import WorkerError, from_line
from cifar_ray.prediction.forecasting.gauge import Round
from cifar_ray.prediction.manifest import Manifest, RangeEnd, chunk_bytes, range_end_bytes
from cifar_ray.prediction.plan import Plan, Prepared, Request, lies_inside, settle
from cifar_ray.prediction.reporting.report import Speed, report_page
from cifar_ray.prediction.sealing import draw_up, unfit_parts
from cifar_ray.prediction.sources import Entry
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import FolderStore

MIN_ROUNDS = 5
MAX_ROUNDS = 20
ENOUGH_S = 10.0
"""After that, no further round than the least."""
REHEARSALS = 2
LOG_LINES = 40


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds and wall seconds."""

    cpu_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Trial:
    """What was measured."""

    record: RunRecord
    driver_cpu_s: float
    """Of a run's driver beside listing and sealing: libraries, model, the first images, the exit
    (that of the workers too)."""
    worker: Cost
    """Of a worker's start, with all that happens once in it."""
    sealing: Cost
    """Of the end of a run: sums, report, receipt."""
    rounds: tuple[tuple[Round, ...], ...]
    """Of each round, what each worker measured."""


@contextmanager
def plan_on_trial(
    request: Request, source: SourceReference, bundle: Bundle, first: list[Entry]
) -> Iterator[Plan]:
    """Yield a plan of a run in a temporary folder, wherever that lies.

    What it labels is laid out, not listed, so that SOURCE may hold the folder.
    """
    with tempfile.TemporaryDirectory(prefix="_cifar-ray-") as folder:
        store = FolderStore(Path(folder) / "trial")
        prepared = Prepared(replace(request, fresh=False), source, store, bundle, None, first)
        yield settle(prepared)


def run_trial(
    plan: Plan, sample: Sequence[Entry], num_workers: int, command: Sequence[str]
) -> Trial:
    """Label a sample of SOURCE, some times over.

    `command` is that of a run of SOURCE on this machine, without its DEST, workers and limit.
    Raises what a run would; `CifarRayError` for a sample over which a worker dies.
    """
    shards = [_lay_out_pair(plan, sample, number) for number in range(num_workers)]
    own_s = time.process_time()
    # What a model needs once on a machine is no part of a run.
    open_backend(plan.bundle, plan.record.execution)
    # No more than there are images: the run would start no further workers.
    few = min(num_workers, len(sample))
    place = _outside(plan.source.reference)
    whole_s = fmean(_rehearse(command, few, place) for _ in range(REHEARSALS))
    worker, rounds = _measure(plan, shards)
    sealing = _seal(plan)
    single_s = fmean(one.single_s for round_ in rounds for one in round_)
    driver_s = whole_s - few * (worker.cpu_s + single_s) - sealing.cpu_s
    if not whole_s:
        driver_s = own_s  # Windows keeps no count of what children used.
    return Trial(plan.record, max(0.0, driver_s), worker, sealing, rounds)


def _outside(source: SourceReference) -> Path:
    """Return a folder for a real run's DEST, which no run lets lie inside SOURCE."""
    for folder in (Path(tempfile.gettempdir()), cache_folder()):
        if not lies_inside(FolderStore(folder), source):
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    raise InputError(
        f"SOURCE {printable(source.uri)} holds the folders of temporary files and of the cache. A "
        "plan labels a few images into such a folder: name one outside with TMPDIR."
    )


def _rehearse(command: Sequence[str], num_images: int, place: Path) -> float:
    """Run all of a run over its first images, one a worker; CPU seconds of all its processes."""
    number = str(num_images)
    with tempfile.TemporaryDirectory(prefix="_cifar-ray-", dir=place) as folder:
        options = ["--out", f"{folder}/run", "--limit", number, "--images-per-shard", "1"]
        options += ["--workers", number, "--local", "--max-failure-rate", "1"]
        before = os.times()
        done = subprocess.run(
            [*command, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    if done.returncode:
        log = "\n".join(done.stdout.splitlines()[-LOG_LINES:])
        text = f"A run of {number} images on trial did not end well.\nThe end of its log:\n{log}"
        raise of_exit_code(done.returncode, text)
    after = os.times()
    # Its workers are among them, for it waits for their end.
    user_s = after.children_user - before.children_user
    return user_s + after.children_system - before.children_system


def lay_out(plan: Plan, shard: ShardName, entries: Sequence[Entry]) -> None:
    """Write images into the manifest as a shard; SOURCE is not listed for it."""
    manifest = Manifest(plan.store, None, plan.record.source.carried)
    data = chunk_bytes(list(entries), RangeEnd(len(entries), {}), carried=manifest.carried)
    plan.store.create(LabellingRun.manifest_chunk(shard), data)


def _lay_out_pair(plan: Plan, sample: Sequence[Entry], number: int) -> tuple[ShardName, ShardName]:
    """Lay out the sample, and its first image alone, as shards of one worker."""
    names = ShardName(0, 2 * number), ShardName(0, 2 * number + 1)
    for name, entries in zip(names, (sample, sample[:1]), strict=True):
        lay_out(plan, name, entries)
    return names


def _measure(
    plan: Plan, shards: list[tuple[ShardName, ShardName]]
) -> tuple[Cost, tuple[tuple[Round, ...], ...]]:
    with _workers(plan, shards) as workers:
        wall_s = fmean(worker.ready() for worker in workers)
        # Caches fill, and libraries load what they load late.
        first = _round(workers)
        rounds: list[tuple[Round, ...]] = []
        started = time.perf_counter()
        while len(rounds) < MIN_ROUNDS or (
            len(rounds) < MAX_ROUNDS and time.perf_counter() - started < ENOUGH_S
        ):
            rounds.append(_round(workers))
    later_s = fmean(one.seconds for round_ in rounds for one in round_)
    once_s = fmean(one.start_s + max(0.0, one.seconds - later_s) for one in first)
    return Cost(once_s, wall_s), tuple(rounds)


def _seal(plan: Plan) -> Cost:
    """Do what a run does at its end, and measure it."""
    manifest = Manifest(plan.store, None)
    for number in range(len(plan.record.source.ranges)):
        end = range_end_bytes(RangeEnd(0, {}))
        plan.store.create(LabellingRun.range_end(number), end)
    started, cpu_started = time.perf_counter(), time.process_time()
    unfit = unfit_parts(plan.store, plan.record, manifest)
    assert not unfit, f"the trial has written every part, but for {unfit}"
    receipt = draw_up(plan.store, plan.record, manifest, plan.bundle.spec)
    nothing = Speed(0, 0, 0.0, {})
    page = report_page(plan.store, plan.source, plan.record, plan.bundle.spec, receipt, nothing)
    plan.store.write(LabellingRun.REPORT, page)
    return Cost(time.process_time() - cpu_started, time.perf_counter() - started)


class _Worker:
    """A process that measures."""

    def __init__(self, plan: Plan, sample: ShardName, single: ShardName, log: IO[str]) -> None:
        self.log = log
        self.started = time.perf_counter()
        source = plan.source.reference.without_ranges().model_dump_json()
        places = (plan.store.uri, source, str(sample), str(single))
        self.process = subprocess.Popen(
            module_command("cifar_ray.prediction.forecasting.gauge", *places),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            # As the local engine starts its workers.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def end(self) -> None:
        """Kill it; all that it writes lies in the trial's folder."""
        self.process.kill()
        self.process.communicate()

    def ready(self) -> float:
        """Wait for the model; wall seconds since the start."""
        self.answer()
        return time.perf_counter() - self.started

    def ask(self) -> None:
        """Begin a round."""
        assert self.process.stdin is not None, "a pipe by construction"
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return  # The missing answer tells.

    def answer(self) -> str:
        """Wait for a line; raises the error that it may say, or that there is none."""
        assert self.process.stdout is not None, "a pipe by construction"
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            raise CifarRayError(self._death())
        if '"kind": "error"' in line:
            error = from_line(line)
            assert isinstance(error, WorkerError), "as it says"
            raise error.as_exception()
        return line

    def _death(self) -> str:
        code = self.process.wait()
        self.log.seek(0)
        log = "\n".join(self.log.read().splitlines()[-LOG_LINES:])
        return (
            f"A process that measures ended with exit code {code}; perhaps the sample holds an "
            "image that crashes the decoder. `predict` does such images with care; another --seed "
            f"draws other ones.\nThe end of its log:\n{log}"
        )


@contextmanager
def _workers(plan: Plan, shards: list[tuple[ShardName, ShardName]]) -> Iterator[list[_Worker]]:
    """Start a worker for each pair of shards, and end them with the block."""
    with ExitStack() as opened:
        workers: list[_Worker] = []
        for sample, single in shards:
            log = opened.enter_context(
                tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
            )
            worker = _Worker(plan, sample, single, log)
            opened.callback(worker.end)
            workers.append(worker)
        yield workers


def _round(workers: list[_Worker]) -> tuple[Round, ...]:
    """Let all begin at once, and wait for all."""
    for worker in workers:
        worker.ask()
    return tuple(Round.from_json(worker.answer()) for worker in workers)
