"""Training beside hand-written loops, in turn: `python -m benchmarks.training`.

`cnn-122k` at batch 32 on random images in memory, each for some seconds in a process of its own,
which begin after the first step. Prints images/s as medians over the rounds, and the ratio to each
peer of the same round. `--keras PYTHON` names a Python that has Keras; `--markdown FILE` keeps what
is printed.
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

from benchmarks.tables import Line, show
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingConfig
from cifar_ray.models import registry
from cifar_ray.training.data.dataset import LabelledImages
from cifar_ray.training.loop import Ranks, Trainer

REPOSITORY = Path(__file__).resolve().parent.parent
OURS, PEER, KERAS = "cifar-ray", "DataLoader, float32", "Keras"
# Epochs of ours are short, so that the clock is looked at; the peers' may be cut.
OUR_IMAGES, THEIR_IMAGES = 2_000, 50_000


def measure(command: list[str], images: int, seconds: float, threads: int) -> float:
    """Return the images/s of a process."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": str(threads),
    }
    done = subprocess.run(
        [*command, str(images), str(seconds)],
        check=True,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    rate: float = found["images"] / found["seconds"]
    return rate


def train_ours(number: int, limit_s: float) -> None:
    """Train whole short epochs of the recipe until the time is over; print as the peers do."""
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


def lines_of(rates: dict[str, list[float]]) -> list[Line]:
    """Return a line a loop, and one for our ratio to each peer."""
    lines: list[Line] = [
        (name, f"{median(found):,.0f}", f"{min(found):,.0f} to {max(found):,.0f}")
        for name, found in rates.items()
    ]
    for peer in list(rates)[1:]:
        ratios = [ours / theirs for ours, theirs in zip(rates[OURS], rates[peer], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        lines.append((f"ratio to {peer}", f"{median(ratios):.2f}×", spread))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("IMAGES", "SECONDS"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keras", type=Path, metavar="PYTHON")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.one:
        train_ours(int(arguments.one[0]), float(arguments.one[1]))
        return
    loops = {
        OURS: ([sys.executable, "-m", "benchmarks.training", "--one"], OUR_IMAGES),
        PEER: ([sys.executable, "-m", "benchmarks.peers.dataloader_training"], THEIR_IMAGES),
    }
    if arguments.keras:
        peer = REPOSITORY / "benchmarks" / "peers" / "keras_training.py"
        loops[KERAS] = ([str(arguments.keras), str(peer)], THEIR_IMAGES)
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(arguments.rounds):
        for name, (command, images) in loops.items():
            rates[name].append(measure(command, images, arguments.seconds, arguments.threads))
    show(
        f"cnn-122k at batch 32, {arguments.rounds} rounds of {arguments.seconds:g} s each, "
        f"{arguments.threads} threads, {os.cpu_count()} cores ({platform.machine()}), "
        f"torch {torch.__version__}",
        ("", "images/s, median", "lowest and highest"),
        lines_of(rates),
        arguments.markdown,
    )


if __name__ == "__main__":
    main()
