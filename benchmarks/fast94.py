"""`fast94` beside a plain loop of its network and schedule: `python -m benchmarks.fast94`.

Both train `speednet-94` on the same of CIFAR-10's training images, in turn, each round in a
process of its own, and are judged after their last epoch by the same other training images,
without test-time augmentation; no test image is looked at. The plain loop is
`benchmarks/peers/plain_fast94.py`: SGD, the usual augmentation, autocast where the processor has
bfloat16. What counts is the time of a whole training that reaches the plain loop's accuracy: so
ours is run with fewer epochs, and with images of full size all the way, too. Batches are of 1,024
for the plain loop, as the public script has them, and as the recipe says for ours. That takes an
hour and a quarter on one core with bfloat16; a look in minutes:

    python -m benchmarks.fast94 --images 4000 --batch-size 500 --epochs 3 --ours 3 2
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch

from benchmarks.tables import Line, show
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import override
from cifar_ray.training.data.dataset import LabelledImages
from cifar_ray.training.data.sources import load
from cifar_ray.training.loop import Ranks, Trainer
from cifar_ray.training.pipeline import make_trainer

REPOSITORY = Path(__file__).resolve().parent.parent
HELD_OUT = 5_000
PEER, PEER_BATCH_SIZE = "plain loop", 1024
FULL_SIZE = ("small_image_fraction=0",)


@dataclass(frozen=True)
class Trained:
    seconds: float
    accuracy: float


def images_of(number: int) -> tuple[LabelledImages, LabelledImages]:
    """Return the same training and held-out images to every loop."""
    data = load("cifar10", 32).train
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    return data.select(order[HELD_OUT : HELD_OUT + number]), data.select(order[:HELD_OUT])


def train_ours(number: int, batch_size: int, epochs: int, seed: int, settings: list[str]) -> None:
    """Train the recipe for so many epochs, its schedule with them; print seconds and accuracy."""
    training, held_out = images_of(number)
    sizes = [f"epochs={epochs}", f"batch_size={batch_size}", f"seed={seed}"]
    config = override(get_recipe("fast94"), [*sizes, *settings])
    trainer: Trainer = make_trainer(config, training, torch.device("cpu"), Ranks())
    started = time.perf_counter()
    for epoch in range(epochs):
        trainer.train_epoch(epoch, training, lambda step: None)
    seconds = time.perf_counter() - started
    _, accuracy = trainer.validate(held_out)
    print(json.dumps({"seconds": seconds, "accuracy": accuracy}))


def measure(module: str, *arguments: object) -> Trained:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    return Trained(**json.loads(done.stdout.splitlines()[-1]))


def lines_of(results: dict[str, list[Trained]], epochs: dict[str, int]) -> list[Line]:
    """Return a line a way to train: seconds and accuracy, and both beside the plain loop's."""
    peers = results[PEER]
    lines: list[Line] = []
    for name, runs in results.items():
        ratios = [run.seconds / peer.seconds for run, peer in zip(runs, peers, strict=True)]
        points = [
            100 * (run.accuracy - peer.accuracy) for run, peer in zip(runs, peers, strict=True)
        ]
        lines.append(
            (
                name,
                f"{epochs[name]}",
                f"{mean(run.seconds for run in runs) / epochs[name]:.1f}",
                f"{mean(run.accuracy for run in runs):.2%}",
                f"{mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{mean(points):+.1f} ({min(points):+.1f} to {max(points):+.1f})",
            )
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=45_000)
    parser.add_argument("--batch-size", type=int, help="of both, in place of their own")
    parser.add_argument("--epochs", type=int, default=10, help="of the plain loop")
    parser.add_argument("--ours", type=int, nargs="+", default=[8], help="epochs of fast94")
    parser.add_argument("--rounds", type=int, default=1, help="each has a seed of its own")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.one:
        number, batch_size, epochs, seed, *settings = arguments.one
        train_ours(int(number), int(batch_size), int(epochs), int(seed), settings)
        return
    ways: dict[str, tuple[str, int, tuple[str, ...]]] = {
        PEER: ("benchmarks.peers.plain_fast94", arguments.epochs, ())
    }
    for epochs in arguments.ours:
        ways[f"fast94, {epochs} epochs"] = ("benchmarks.fast94", epochs, ())
        full_size = f"fast94, {epochs} epochs, all at 32 px"
        ways[full_size] = ("benchmarks.fast94", epochs, FULL_SIZE)
    results: dict[str, list[Trained]] = {name: [] for name in ways}
    for seed in range(arguments.rounds):
        for name, (module, epochs, settings) in ways.items():
            one = () if name == PEER else ("--one",)
            own = PEER_BATCH_SIZE if name == PEER else get_recipe("fast94").batch_size
            sizes = (arguments.images, arguments.batch_size or own, epochs, seed)
            results[name].append(measure(module, *one, *sizes, *settings))
    show(
        f"speednet-94 on {arguments.images:,} of CIFAR-10's training images, judged by "
        f"{HELD_OUT:,} others; means of {arguments.rounds} rounds, {os.cpu_count()} cores "
        f"({platform.machine()}), torch {torch.__version__}",
        ("", "epochs", "s an epoch", "accuracy", "time, of the plain loop's", "points above it"),
        lines_of(results, {name: epochs for name, (_, epochs, _) in ways.items()}),
        arguments.markdown,
    )


if __name__ == "__main__":
    main()
