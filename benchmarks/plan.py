"""Does the interval of `plan` hold what the run then takes? `python -m benchmarks.plan`.

Draws stores of different sizes and mixes of sizes, plans each, labels it, and holds the CPU seconds
of the whole predict command (all its processes, as the system counts them) against the interval.
Prints a row a store, how many intervals held, and how wide they are where the store is large. The
20 stores take two quiet cores some ten minutes; on busy ones CPU seconds are no measure.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import measure
from tests.drawing import draw

KINDS = ((32, 32), (160, 120), (500, 375), (1600, 1200))
DRAWN = 25
"""Different images of a kind; a store has links to them, so that it takes no disk."""
NUMBERS = (200, 600, 1500, 3000, 10_000)
LARGE = 10_000
"""From so many images on an interval shall be narrow; such a store has images of the smaller kinds
alone, so that all stores together take minutes."""
HOURS = 3600


@dataclass(frozen=True)
class Row:
    images: int
    mix: tuple[float, ...]
    low_s: float
    expected_s: float
    high_s: float
    true_s: float

    @property
    def held(self) -> bool:
        return self.low_s <= self.true_s <= self.high_s

    @property
    def width(self) -> float:
        """Half of the interval, as a share of what is expected."""
        return (self.high_s - self.expected_s) / self.expected_s

    def __str__(self) -> str:
        mix = " ".join(f"{share:4.0%}" for share in self.mix)
        ratio = self.true_s / self.expected_s
        return (
            f"{self.images:<7,} {mix}   {self.expected_s:>6.1f} ±{self.width:<4.0%} "
            f"{self.true_s:>6.1f}   {ratio:.2f}   {'held' if self.held else 'MISSED'}"
        )


def draw_kinds(folder: Path) -> list[list[Path]]:
    """Draw the images that stores are made of; JPEG of several qualities, some PNG."""
    rng = random.Random(0)
    kinds = []
    for width, height in KINDS:
        paths = []
        for number in range(DRAWN):
            size = round(width * rng.uniform(0.8, 1.25)), round(height * rng.uniform(0.8, 1.25))
            path = folder / f"{width}-{number:02}.{'png' if number % 8 == 0 else 'jpg'}"
            draw(rng, size, "RGB").save(path, quality=rng.choice((60, 80, 95)))
            paths.append(path)
        kinds.append(paths)
    return kinds


def make_store(
    folder: Path, kinds: list[list[Path]], number: int, rng: random.Random
) -> list[float]:
    """Fill a folder with links, by a mix of its own; return the mix."""
    # The large ones are rare, as in most stores: else one store would take all the time there is.
    kinds = kinds[: len(kinds) // 2] if number >= LARGE else kinds
    areas = [width * height for width, height in KINDS[: len(kinds)]]
    weights = [rng.random() ** 2 / area**0.4 for area in areas]
    mix = [weight / sum(weights) for weight in weights]
    folder.mkdir()
    for at, kind in enumerate(rng.choices(kinds, weights, k=number)):
        drawn = rng.choice(kind)
        os.link(drawn, folder / f"{at:06}{drawn.suffix}")
    return mix + [0.0] * (len(KINDS) - len(kinds))


def run(store: Path, out: Path, options: list[str]) -> tuple[dict[str, float], float]:
    """Plan and label; the interval in CPU-hours, and the CPU seconds that it took."""
    ours = [sys.executable, "-m", "cifar_ray"]
    arguments = [str(store), "--out", str(out), *options]
    _, printed = measure([*ours, "plan", *arguments, "--json"], store.parent)
    usage, _ = measure([*ours, "predict", *arguments, "--local"], store.parent)
    interval: dict[str, float] = json.loads(printed)["cpu_hours"]
    return interval, usage.cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stores", type=int, default=20)
    parser.add_argument("--numbers", type=int, nargs="+", default=NUMBERS, help="images a store")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", help="default: the model in the box")
    arguments = parser.parse_args()
    options = ["--workers", str(arguments.workers)]
    if arguments.model:
        options += ["--model", arguments.model]
    sides = " ".join(f"{width:>4}" for width, _ in KINDS)
    print(f"images  {sides}   CPU s, 90 %  true   ratio")
    rows = []
    with tempfile.TemporaryDirectory(prefix="cifar-ray-bench-") as name:
        kinds = draw_kinds(Path(name))
        for number in range(arguments.stores):
            folder = Path(name) / f"run-{number}"
            folder.mkdir()
            images = arguments.numbers[number % len(arguments.numbers)]
            mix = make_store(folder / "store", kinds, images, random.Random(number))
            interval, true_s = run(folder / "store", folder / "out", options)
            low, expected, high = (HOURS * interval[name] for name in ("low", "expected", "high"))
            rows.append(Row(images, tuple(mix), low, expected, high, true_s))
            print(rows[-1], flush=True)
    print(f"{sum(row.held for row in rows)} of {len(rows)} intervals held")
    if large := [row.width for row in rows if row.images >= LARGE]:
        print(f"from {LARGE:,} images on: ±{max(large):.0%} at most")


if __name__ == "__main__":
    main()
