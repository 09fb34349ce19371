"""From command to first committed part: `python -m benchmarks.start`.

The local engine beside a bare `import torch`, and the Ray engine beside Ray Data's own bare start
(`peers/ray_data_start.py`), in turn: seconds, and the difference of each pair. Graphs are cached,
and the store is small, so that what is measured is the start.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.bundles import bundle_of
from benchmarks.measuring import measure, measure_labelling
from benchmarks.stores import STORES
from benchmarks.tables import show

TORCH, RAY_DATA = "`import torch`", "Ray Data's bare start"
LOCAL, RAY = "local engine", "Ray engine"
BESIDE = {LOCAL: TORCH, RAY: RAY_DATA}
TITLES = ("", "median s", "from, to", "beyond", "s: median", "from, to")


def first_part_s(store: Path, bundle: Path, folder: Path, *options: str) -> float:
    usage, parts = measure_labelling(store, bundle, folder, *options)
    return parts[0].stat().st_mtime - usage.began


def ray_data_s(folder: Path) -> float:
    usage, printed = measure([sys.executable, "-m", "benchmarks.peers.ray_data_start"], folder)
    first: float = json.loads(printed.splitlines()[-1])["first_row"]
    return first - usage.began


def torch_s(folder: Path) -> float:
    return measure([sys.executable, "-c", "import torch"], folder)[0].wall_s


def spread(values: list[float]) -> tuple[str, str]:
    return f"{median(values):.1f}", f"{min(values):.1f} to {max(values):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="cifar", choices=STORES)
    parser.add_argument("--model", default="box", help="box, a bundle's folder, or a network")
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cifar-ray-bench-") as name:
        folder = Path(name)
        store = folder / "store"
        store.mkdir()
        STORES[arguments.store](store)
        for surplus in sorted(store.iterdir())[256:]:
            surplus.unlink()
        bundle = bundle_of(arguments.model, folder).path
        first_part_s(store, bundle, folder, "--local")  # So that the graph is cached.
        seconds: dict[str, list[float]] = {name: [] for name in (TORCH, LOCAL, RAY_DATA, RAY)}
        for _ in range(arguments.pairs):
            seconds[TORCH].append(torch_s(folder))
            seconds[LOCAL].append(first_part_s(store, bundle, folder, "--local"))
            seconds[RAY_DATA].append(ray_data_s(folder))
            seconds[RAY].append(first_part_s(store, bundle, folder, "--engine", "ray"))
    lines = []
    for what, values in seconds.items():
        beside = BESIDE.get(what)
        more = [a - b for a, b in zip(values, seconds[beside], strict=True)] if beside else []
        beyond = (beside, *spread(more)) if beside else ("", "", "")
        lines.append((what, *spread(values), *beyond))
    heading = f"First committed part, {arguments.model}, {arguments.pairs} pairs"
    show(heading, TITLES, lines)


if __name__ == "__main__":
    main()
