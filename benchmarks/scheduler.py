"""What a shard costs the driver: fake shards through the engine's own Ray Data pipeline.

    python -m benchmarks.scheduler --shards 2000 --shards 20000

The workers do nothing, so that all that is measured is scheduling: listing tasks, the actor pool,
and the event back to the driver. Prints a row a size, and the slope of the driver's memory.
"""

import argparse
import time
from dataclasses import dataclass

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
        return {"event": [to_line(ShardDone(shard, FOOTER, -1.0, stages))]}


@dataclass(frozen=True)
class Result:
    shards: int
    first_s: float
    rest_s: float
    cpu_s: float
    rss_start_mib: float
    rss_end_mib: float

    @property
    def ms_a_shard(self) -> float:
        return 1000 * self.rest_s / (self.shards - 1)


def simulate(num_shards: int, num_workers: int) -> Result:
    """Send fake shards through a dataset and measure the driver."""
    driver = psutil.Process()
    names = [str(ShardName(0, number)) for number in range(num_shards)]
    watch = Watch(open_board(), 1)
    actors = ActorSettings(num_workers, 0.5, None)
    dataset = shard_dataset([naming_task(names)], actors, (), FakeWorker)
    started, cpu = time.perf_counter(), _cpu_seconds(driver)
    first = rss = 0.0
    done = 0
    for event in follow(dataset, watch, StorePatience(10.0)):
        if isinstance(event, ShardDone):
            done += 1
            if done == 1:
                first, rss = time.perf_counter() - started, driver.memory_info().rss / MEBIBYTE
    assert done == num_shards, f"{done} of {num_shards} shards came back"
    seconds = time.perf_counter() - started
    end = driver.memory_info().rss / MEBIBYTE
    return Result(num_shards, first, seconds - first, _cpu_seconds(driver) - cpu, rss, end)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, action="append")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print("shards    first s   ms/shard   driver CPU ms/shard   driver MiB, first and last shard")
    with ray_session("local", num_cpus=2):
        for num_shards in options.shards or [2_000, 10_000]:
            result = simulate(num_shards, options.workers)
            cpu_ms = 1000 * result.cpu_s / num_shards
            print(
                f"{num_shards:<9,} {result.first_s:<9.1f} {result.ms_a_shard:<10.1f} "
                f"{cpu_ms:<21.1f} {result.rss_start_mib:.0f}, {result.rss_end_mib:.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
