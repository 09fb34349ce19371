"""Two workers on two cores beside one on one: `python -m benchmarks.data_parallel`.

`fast94` at its own batch on some of CIFAR-10's training images: `cifar-ray train`, in turn with one
worker that is held to one core, and with two under Ray Train. Counts the images/s of epochs, as the
runs' `history.json` has them, without the first epoch and without Ray's start.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch

from benchmarks.tables import show

REPOSITORY = Path(__file__).resolve().parent.parent
RECIPE = "fast94"


def rates(workers: int, images: int, epochs: int, run: Path) -> list[float]:
    """Train, and return the images/s of each epoch after the first."""
    sizes = (f"epochs={epochs}", f"splits.num_training_images={images}")
    # So that each epoch costs the same.
    settings = (*sizes, "small_image_fraction=0")
    command = [sys.executable, "-m", "cifar_ray", "train", "cifar10", "--recipe", RECIPE]
    command += ["--out", str(run), "--workers", str(workers)]
    command += [word for setting in settings for word in ("--set", setting)]
    cores = sorted(os.sched_getaffinity(0))[:workers]
    subprocess.run(
        command,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    rows = json.loads((run / "history.json").read_text())
    return [row["images_per_second"] for row in rows[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="cifar-ray-bench-") as folder:
        for number in range(arguments.rounds):
            for workers in found:
                run = Path(folder) / f"{number}-{workers}"
                epochs = rates(workers, arguments.images, arguments.epochs, run)
                found[workers].append(median(epochs))
    ratios = [two / one for one, two in zip(found[1], found[2], strict=True)]
    lines = [
        (f"{n} on as many cores", f"{median(of_rounds):,.0f}") for n, of_rounds in found.items()
    ]
    spread = f"{median(ratios):.2f}× ({min(ratios):.2f} to {max(ratios):.2f})"
    show(
        f"{RECIPE}, {arguments.images:,} images, {arguments.rounds} rounds of "
        f"{arguments.epochs - 1} counted epochs, {os.cpu_count()} cores ({platform.machine()}), "
        f"torch {torch.__version__}",
        ("workers", "images/s, median"),
        [*lines, ("ratio of the rounds", spread)],
        arguments.markdown,
    )


if __name__ == "__main__":
    main()
