"""What a shard costs the driver: fake shards through an engine's own scheduling.

    python -m benchmarks.scheduler --engine local --shards 20000 --shards 100000
    python -m benchmarks.scheduler --engine ray --shards 2000 --shards 20000

The workers do nothing, so that all that is measured is scheduling: the listing, what is handed to
workers (processes, or Ray's actors), and the event back to the driver. Prints a row a size: wall
and CPU time a shard from the first event on, whether the second half is slower than the first, and
how the driver's memory grows.
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import psutil

from benchmarks.fake_worker import IMAGES_PER_SHARD, done
from cifar_ray.config.labelling import SourceReference
from cifar_ray.prediction.child import module_command
from cifar_ray.prediction.engine import RunEvent, StorePatience
from cifar_ray.prediction.events import ShardDone
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.shards import ListedShard
from cifar_ray.runs import ShardName

NUM_SAMPLES = 200
STORE_TIMEOUT_S = 10.0
MEBIBYTE = 2**20
SIZES = {"local": [20_000, 100_000], "ray": [2_000, 10_000]}
"""Shards, by engine, that two cores get through in some ten minutes together."""


class FakeWorker:
    """Says of every shard that it is done, as Ray Data calls an actor."""

    def __call__(self, batch: dict[str, list[str]]) -> dict[str, list[str]]:
        (shard,) = batch["shard"]
        return {"event": [done(shard)]}


@dataclass(frozen=True)
class Sample:
    """The driver at one moment."""

    shards: int
    seconds: float
    cpu_s: float
    rss_mib: float


@dataclass(frozen=True)
class Result:
    """What was seen from the first shard's event to the last one's."""

    samples: list[Sample]

    @property
    def first_s(self) -> float:
        """Seconds to the first event: workers start."""
        return self.samples[0].seconds

    def ms_a_shard(self, start: float, end: float) -> float:
        """Wall time a shard between two shares of the run."""
        before, after = self._at(start), self._at(end)
        return 1000 * (after.seconds - before.seconds) / (after.shards - before.shards)

    @property
    def cpu_ms_a_shard(self) -> float:
        before, after = self._at(0), self._at(1)
        return 1000 * (after.cpu_s - before.cpu_s) / (after.shards - before.shards)

    @property
    def kib_a_shard(self) -> float:
        """Slope of the driver's memory, without its first tenth, in which it still warms up."""
        rest = self.samples[len(self.samples) // 10 :]
        shards = np.array([sample.shards for sample in rest])
        return float(np.polyfit(shards, [1024 * sample.rss_mib for sample in rest], 1)[0])

    def _at(self, share: float) -> Sample:
        return self.samples[round(share * (len(self.samples) - 1))]


def simulate(engine: str, num_shards: int, num_workers: int) -> Result:
    """Send fake shards through an engine and measure the driver."""
    if engine == "local":
        return _watch(_through_processes(num_shards, num_workers), num_shards)
    from cifar_ray.on_ray.session import ray_session

    # A Ray for each size, so that none carries what the one before has left.
    with ray_session("local", num_cpus=2):
        return _watch(_through_ray(num_shards, num_workers), num_shards)


def _through_processes(num_shards: int, num_workers: int) -> Iterator[RunEvent]:
    nowhere = SourceReference(kind="folder", uri="/nowhere")
    engine = LocalEngine("/nowhere", nowhere, num_workers, STORE_TIMEOUT_S)
    engine.command = module_command("benchmarks.fake_worker")
    names = (ShardName(0, number) for number in range(num_shards))
    with closing(engine.run(ListedShard(name, IMAGES_PER_SHARD, False) for name in names)) as run:
        yield from run


def _through_ray(num_shards: int, num_workers: int) -> Iterator[RunEvent]:
    from cifar_ray.on_ray.board import Watch, open_board
    from cifar_ray.on_ray.prediction import ActorSettings, follow, shard_dataset
    from cifar_ray.on_ray.shards import naming_task

    names = [str(ShardName(0, number)) for number in range(num_shards)]
    watch = Watch(open_board(), 1)
    actors = ActorSettings(num_workers, 0.5, None)
    dataset = shard_dataset([naming_task(names)], actors, (), FakeWorker)
    yield from follow(dataset, watch, StorePatience(STORE_TIMEOUT_S))


def _watch(events: Iterable[RunEvent], num_shards: int) -> Result:
    driver = psutil.Process()
    started = time.perf_counter()
    step = max(1, num_shards // NUM_SAMPLES)
    samples: list[Sample] = []
    ended = 0
    for event in events:
        if isinstance(event, ShardDone):
            ended += 1
            if ended == 1 or ended % step == 0 or ended == num_shards:
                seconds = time.perf_counter() - started
                rss_mib = driver.memory_info().rss / MEBIBYTE
                samples.append(Sample(ended, seconds, time.process_time(), rss_mib))
    assert ended == num_shards, f"{ended} of {num_shards} shards came back"
    return Result(samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=tuple(SIZES), default="ray")
    parser.add_argument("--shards", type=int, action="append")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(
        "engine  shards    first s   ms/shard: all, 1st half, 2nd half   driver: CPU ms/shard   "
        "MiB first, last   KiB/shard"
    )
    for num_shards in options.shards or SIZES[options.engine]:
        result = simulate(options.engine, num_shards, options.workers)
        halves = [result.ms_a_shard(*part) for part in ((0, 1), (0, 0.5), (0.5, 1))]
        first, last = result.samples[0].rss_mib, result.samples[-1].rss_mib
        print(
            f"{options.engine:<7} {num_shards:<9,} {result.first_s:<9.1f} "
            f"{', '.join(f'{ms:.2f}' for ms in halves):<34} {result.cpu_ms_a_shard:<22.2f} "
            f"{first:.0f}, {last:.0f}{'':<9} {result.kib_a_shard:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
