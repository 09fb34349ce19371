"""What a shard costs the driver: fake shards through the engine's own Ray Data pipeline.

    python -m benchmarks.scheduler --shards 2000 --shards 20000

The workers do nothing, so that all that is measured is scheduling: listing tasks, the actor pool,
and the event back to the driver. Prints a row a size: wall and CPU time a shard from the first
event on, whether the second half is slower than the first, and how the driver's memory grows.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
import psutil
from ray.data.block import DataBatch

from cifar_ray.on_ray.board import Watch, open_board
from cifar_ray.on_ray.prediction import ActorSettings, follow, shard_dataset
from cifar_ray.on_ray.session import ray_session
from cifar_ray.on_ray.shards import naming_task
from cifar_ray.prediction.engine import StorePatience
from cifar_ray.prediction.events import ShardDone, to_line
from cifar_ray.prediction.part import PartFooter
from cifar_ray.runs import ShardName

IMAGES_PER_SHARD = 16_384
NUM_SAMPLES = 200
MEBIBYTE = 2**20
FOOTER = PartFooter(
    run="0" * 64,
    shard=str(ShardName(0, 0)),
    shard_digest="0" * 64,
    rows=IMAGES_PER_SHARD,
    counts={"ok": IMAGES_PER_SHARD},
    image_bytes=IMAGES_PER_SHARD * 100_000,
)


class FakeWorker:
    """Says of every shard that it is done."""

    def __call__(self, batch: DataBatch) -> dict[str, list[str]]:
        stages = {"fetch": 1.0, "decode": 2.0, "model": 3.0, "write": 0.1}
        (shard,) = batch["shard"]
        return {"event": [to_line(ShardDone(shard, FOOTER, stages, 6.1))]}


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

    first_s: float
    samples: list[Sample]

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


def simulate(num_shards: int, num_workers: int) -> Result:
    """Send fake shards through a dataset and measure the driver."""
    driver = psutil.Process()
    names = [str(ShardName(0, number)) for number in range(num_shards)]
    watch = Watch(open_board(), 1)
    actors = ActorSettings(num_workers, 0.5, None)
    dataset = shard_dataset([naming_task(names)], actors, (), FakeWorker)
    started = time.perf_counter()
    step = max(1, num_shards // NUM_SAMPLES)
    samples: list[Sample] = []
    done = 0
    for event in follow(dataset, watch, StorePatience(10.0)):
        if isinstance(event, ShardDone):
            done += 1
            if done == 1 or done % step == 0 or done == num_shards:
                seconds = time.perf_counter() - started
                rss_mib = driver.memory_info().rss / MEBIBYTE
                samples.append(Sample(done, seconds, time.process_time(), rss_mib))
    assert done == num_shards, f"{done} of {num_shards} shards came back"
    return Result(samples[0].seconds, samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, action="append")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(
        "shards    first s   ms/shard: all, 1st half, 2nd half   driver: CPU ms/shard   "
        "MiB first, last   KiB/shard"
    )
    for num_shards in options.shards or [2_000, 10_000]:
        # A Ray for each size, so that none carries what the one before has left.
        with ray_session("local", num_cpus=2):
            result = simulate(num_shards, options.workers)
        halves = [result.ms_a_shard(*part) for part in ((0, 1), (0, 0.5), (0.5, 1))]
        first, last = result.samples[0].rss_mib, result.samples[-1].rss_mib
        print(
            f"{num_shards:<9,} {result.first_s:<9.1f} "
            f"{', '.join(f'{ms:.1f}' for ms in halves):<34} {result.cpu_ms_a_shard:<22.1f} "
            f"{first:.0f}, {last:.0f}{'':<9} {result.kib_a_shard:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
