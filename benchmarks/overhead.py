"""What manifest, digests, rows, parts and receipt cost: `python -m benchmarks.overhead`.

CPU time an image of the local engine with one worker, beside a bare script of the same decoder,
model and Parquet (`peers/bare.py`) and beside the same with the least that is promised of a file
and a part (`peers/promised.py`), in turn. Each is the slope between two runs, over all of a store
and over a tenth of it, so that what is paid once a run is not in it.
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

BARE, PROMISED = "bare", "promised"
PEERS = (None, PROMISED, BARE)
"""Scripts in `peers/`; None is cifar-ray itself."""


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

        def cpu_s(store: Path, peer: str | None) -> float:
            if peer is None:
                options = ("--local", "--workers", "1")
                return measure_labelling(store, bundle.path, folder, *options)[0].cpu_s
            shutil.rmtree(folder / PROMISED, ignore_errors=True)
            command = ["-m", f"benchmarks.peers.{peer}", str(store), str(bundle.path)]
            return measure([sys.executable, *command], folder)[0].cpu_s

        cpu_s(part, None)  # So that the graph is converted and cached.
        rounds = [
            tuple((cpu_s(whole, peer) - cpu_s(part, peer)) / further for peer in PEERS)
            for _ in range(arguments.pairs)
        ]
    bare = [times[PEERS.index(BARE)] for times in rounds]
    lines = []
    for peer, times in zip(PEERS, zip(*rounds, strict=True), strict=True):
        more = [ours / theirs - 1 for ours, theirs in zip(times, bare, strict=True)]
        micros = [1e6 * time for time in times]
        lines.append((peer or "cifar-ray", _spread(micros, ",.0f"), _spread(more, "+.1%")))
    heading = f"{further:,} images of `{arguments.store}`, {bundle.id}; {arguments.pairs} rounds"
    show(heading, ("", "µs of CPU an image", "more than the bare script"), lines)


def _spread(values: list[float], form: str) -> str:
    """Return the median, and the lowest and highest."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
