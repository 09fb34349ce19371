"""Labelling beside a hand-written loop, in turn, on the same files: `python -m benchmarks.predict`.

Prints, as medians over the pairs: images/s of the whole process and of the steady state, CPU time
an image, and seconds to the first committed part; and the ratio to the peer of the same run. A
steady state begins with the first part (cifar-ray) or the first batch (the peer).
"""

import argparse
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from cifar_ray.models.bundle import Bundle
from tests.drawing import draw

REPOSITORY = Path(__file__).resolve().parent.parent
PEER = "DataLoader, float32"


@dataclass(frozen=True)
class Measured:
    images: int
    wall_s: float
    cpu_s: float
    steady_images_per_s: float
    first_part_s: float | None = None


def children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(command: list[str], folder: Path) -> tuple[float, float, float, str]:
    """Run a command in a folder; wall-clock start, wall seconds, CPU seconds, what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    before, clock, started = children_cpu_s(), time.time(), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return clock, time.perf_counter() - started, children_cpu_s() - before, done.stdout


def run_ours(store: Path, bundle: Path, folder: Path, options: list[str]) -> Measured:
    out = folder / "ours"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "cifar_ray", "predict", str(store), "--out", str(out)]
    clock, wall_s, cpu_s, _ = timed([*command, "--model", str(bundle), *options], folder)
    parts = sorted((out / "predictions").iterdir(), key=lambda path: path.stat().st_mtime)
    times = [path.stat().st_mtime for path in parts]
    rows = [pq.read_metadata(path).num_rows for path in parts]
    steady = sum(rows[1:]) / (times[-1] - times[0])
    return Measured(sum(rows), wall_s, cpu_s, steady, times[0] - clock)


def run_peer(store: Path, bundle: Path, folder: Path) -> Measured:
    module = "benchmarks.peers.dataloader_float32"
    command = [sys.executable, "-m", module, str(store), str(bundle)]
    _, wall_s, cpu_s, printed = timed(command, folder)
    steady = json.loads(printed.splitlines()[-1])
    images = len((folder / "labels.csv").read_text().splitlines())
    return Measured(images, wall_s, cpu_s, steady["images"] / steady["seconds"])


def draw_store(folder: Path, number: int) -> None:
    """Fill a folder with drawn 32×32 JPEG, where no other is given."""
    rng = random.Random(0)
    for i in range(number):
        draw(rng, (32, 32), "RGB").save(folder / f"{i:05}.jpg")


def table_of(results: dict[str, list[Measured]]) -> Table:
    table = Table("", "images/s whole", "images/s steady", "CPU ms/image", "first part, s")
    peers = results[PEER]
    for name, runs in results.items():
        firsts = [run.first_part_s for run in runs if run.first_part_s is not None]
        table.add_row(
            name,
            f"{median(run.images / run.wall_s for run in runs):,.0f}",
            f"{median(run.steady_images_per_s for run in runs):,.0f}",
            f"{median(run.cpu_s / run.images * 1000 for run in runs):.2f}",
            f"{median(firsts):.1f}" if firsts else "",
        )
        if name != PEER:
            pairs = list(zip(runs, peers, strict=True))
            whole = median(p.wall_s / r.wall_s for r, p in pairs)
            steady = median(r.steady_images_per_s / p.steady_images_per_s for r, p in pairs)
            cpu = median(p.cpu_s / r.cpu_s for r, p in pairs)
            table.add_row("  ratio", f"{whole:.2f}×", f"{steady:.2f}×", f"{cpu:.2f}×", "")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="a folder of images; default: 2,000 drawn ones")
    parser.add_argument("--bundle", type=Path, help="default: the model in the box")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="measure the Ray engine too")
    arguments = parser.parse_args()
    bundle = arguments.bundle or Bundle.default().path
    with tempfile.TemporaryDirectory(prefix="cifar-ray-bench-") as name:
        folder = Path(name)
        store = arguments.store or folder / "drawn"
        if arguments.store is None:
            store.mkdir()
            draw_store(store, 2000)
        engines = {"cifar-ray, local": ["--local"]}
        if arguments.ray:
            engines["cifar-ray, ray"] = ["--engine", "ray"]
        results: dict[str, list[Measured]] = {name: [] for name in (*engines, PEER)}
        for _ in range(arguments.pairs):
            for engine, options in engines.items():
                results[engine].append(run_ours(store.absolute(), bundle, folder, options))
            results[PEER].append(run_peer(store.absolute(), bundle, folder))
    console = Console(width=100)
    console.print(
        f"{results[PEER][0].images:,} images, {Bundle.load(bundle).id}, medians of "
        f"{arguments.pairs} pairs, {os.cpu_count()} cores ({platform.machine()})"
    )
    console.print(table_of(results))


if __name__ == "__main__":
    main()
