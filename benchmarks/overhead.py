"""What manifest, digests, rows, parts and receipt cost: `python -m benchmarks.overhead`.

CPU time an image of the local engine with one worker, beside a bare script of the same decoder,
model and Parquet (`peers/bare.py`), in turn. Both are the slope between two runs, over all of a
store and over a tenth of it, so that what is paid once a run is not in it.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.bundles import bundle_of
from benchmarks.measuring import measure, measure_labelling
from benchmarks.stores import STORES
from benchmarks.tables import show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="cifar", choices=STORES)
    parser.add_argument("--model", default="cnn-122k", help="box, a bundle's folder, or a network")
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cifar-ray-bench-") as name:
        folder = Path(name)
        whole, part = folder / "whole", folder / "part"
        for store in (whole, part):
            store.mkdir()
        STORES[arguments.store](whole)
        files = sorted(whole.iterdir())
        for path in files[::10]:
            shutil.copyfile(path, part / path.name)
        further = len(files) - len(list(part.iterdir()))
        bundle = bundle_of(arguments.model, folder)

        def cpu_s(store: Path, ours: bool) -> float:
            if ours:
                options = ("--local", "--workers", "1")
                return measure_labelling(store, bundle.path, folder, *options)[0].cpu_s
            command = ["-m", "benchmarks.peers.bare", str(store), str(bundle.path)]
            return measure([sys.executable, *command], folder)[0].cpu_s

        cpu_s(part, ours=True)  # So that the graph is converted and cached.
        pairs = [
            tuple((cpu_s(whole, ours) - cpu_s(part, ours)) / further for ours in (True, False))
            for _ in range(arguments.pairs)
        ]
    lines = [
        (
            what,
            f"{1e6 * median(values):,.0f}",
            f"{1e6 * min(values):,.0f} to {1e6 * max(values):,.0f}",
        )
        for what, values in zip(("cifar-ray", "bare script"), zip(*pairs, strict=True), strict=True)
    ]
    ratios = [ours / bare - 1 for ours, bare in pairs]
    lines.append(("more", f"{median(ratios):+.1%}", f"{min(ratios):+.1%} to {max(ratios):+.1%}"))
    pairs_of = f"medians of {arguments.pairs} pairs"
    heading = f"{further:,} images of `{arguments.store}`, {bundle.id}; {pairs_of}"
    show(heading, ("", "µs of CPU an image", "from, to"), lines)


if __name__ == "__main__":
    main()
