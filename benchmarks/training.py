"""Training beside a hand-written DataLoader loop, in turn: `python -m benchmarks.training`.

`cnn-122k` at batch 32 on random images in memory, each for some seconds in a process of its own,
which begin after the first step. Prints images/s as medians over the pairs, and the ratio of each
pair's two runs.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingConfig
from cifar_ray.models import registry
from cifar_ray.training.dataset import LabelledImages
from cifar_ray.training.loop import Ranks, Trainer

REPOSITORY = Path(__file__).resolve().parent.parent
OURS, PEER = "cifar-ray", "DataLoader, float32"
COMMANDS = {
    OURS: [sys.executable, "-m", "benchmarks.training", "--one"],
    PEER: [sys.executable, "-m", "benchmarks.peers.dataloader_training"],
}


def measure(name: str, images: int, seconds: float, threads: int) -> float:
    """Return the images/s of a process."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": str(threads),
    }
    command = [*COMMANDS[name], str(images), str(seconds)]
    done = subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return found["images"] / found["seconds"]


def train_ours(number: int, limit_s: float) -> None:
    """Train whole short epochs of the recipe until the time is over; print as the peer does."""
    config: TrainingConfig = get_recipe("cnn-122k")
    generator = torch.Generator().manual_seed(0)
    data = LabelledImages(
        torch.randint(0, 256, (number, 32, 32, 3), dtype=torch.uint8, generator=generator),
        torch.randint(0, 10, (number,), generator=generator),
        tuple("0123456789"),
        (32, 32, 32, 32),
    )
    network = registry.build(config.network, 10)
    trainer = Trainer(config, network, data.statistics(), torch.device("cpu"), Ranks())
    trainer.train_epoch(0, data.select(torch.arange(config.batch_size)), lambda step: None)
    started, images, epoch = time.perf_counter(), 0, 1
    while time.perf_counter() - started < limit_s:
        trainer.train_epoch(epoch, data, lambda step: None)
        images, epoch = images + number, epoch + 1
    print(json.dumps({"images": images, "seconds": time.perf_counter() - started}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("IMAGES", "SECONDS"), help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if arguments.one:
        train_ours(int(arguments.one[0]), float(arguments.one[1]))
        return
    rates: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.pairs):
        # Epochs of ours are short, so that the clock is looked at; the peer's may be cut.
        rates[OURS].append(measure(OURS, 2_000, arguments.seconds, arguments.threads))
        rates[PEER].append(measure(PEER, 50_000, arguments.seconds, arguments.threads))
    table = Table("", "images/s, median", "lowest and highest")
    for name, found in rates.items():
        table.add_row(name, f"{median(found):,.0f}", f"{min(found):,.0f} to {max(found):,.0f}")
    ratios = [ours / peer for ours, peer in zip(rates[OURS], rates[PEER], strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    table.add_row("ratio of the pairs", f"{median(ratios):.2f}×", spread)
    console = Console(width=100)
    console.print(
        f"cnn-122k at batch 32, {arguments.pairs} pairs of {arguments.seconds:g} s, "
        f"{arguments.threads} threads, {os.cpu_count()} cores ({platform.machine()}), "
        f"torch {torch.__version__}"
    )
    console.print(table)


if __name__ == "__main__":
    main()
