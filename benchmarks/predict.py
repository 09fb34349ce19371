"""Labelling beside its peers, in turn, on the same files: `python -m benchmarks.predict`.

Prints, as Markdown and as medians over the pairs: images/s of the whole process and of the steady
state, CPU time an image, peak memory and seconds to the first committed part; how many times faster
the local engine is than each peer of the same pair, and each peer than the float32 loop; and the
ceiling, which is decoding alone plus the model alone on the same cores.

A steady state begins when each worker has committed a part (cifar-ray) or with the first batch (the
peers). "Beyond" is the CPU time an image beyond decode and model: from two runs of the local engine
over stores of two sizes, so that what is paid once a run is not in it.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq

from benchmarks.bundles import bundle_of
from benchmarks.measuring import REPOSITORY, Usage, measure, measure_labelling, steady_rate
from benchmarks.stores import STORES
from cifar_ray.config.machine import usable_cores
from cifar_ray.models.backends.machine import detect_instruction_set

OURS, RAY = "cifar-ray, local engine", "cifar-ray, Ray engine"
FLOAT32 = "DataLoader, float32"
THEIR_PYTHON = REPOSITORY / "out" / "peers" / "bin" / "python"


@dataclass(frozen=True)
class Peer:
    name: str
    module: str
    python: Path = Path(sys.executable)
    needs: str = ""
    """A package that is not in the lock."""


PEERS = {
    "float32": Peer(FLOAT32, "dataloader_float32"),
    "expert": Peer("DataLoader, tuned", "dataloader_expert"),
    "ray-data": Peer("Ray Data's pipeline", "ray_data"),
    "daft": Peer("Daft", "daft_udf", THEIR_PYTHON, "daft"),
    "timm": Peer("timm", "timm_loader", THEIR_PYTHON, "timm"),
}
ENGINES = {OURS: ["--local"], RAY: ["--engine", "ray"]}


@dataclass(frozen=True)
class Measured:
    images: int
    usage: Usage
    steady: float | None
    """Images/s; None where a run is too short to have a steady state."""
    first_part_s: float | None = None


@dataclass
class Bench:
    store: Path
    bundle: Path
    folder: Path
    results: dict[str, list[Measured]] = field(default_factory=dict)
    beyond_us: list[float] = field(default_factory=list)
    imports_s: list[float] = field(default_factory=list)
    ceilings: list[dict[str, dict[str, float]]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def pair(self, engines: list[str], peers: list[Peer]) -> None:
        """Run each once, in turn."""
        for engine in engines:
            self._add(engine, self.run_ours(ENGINES[engine]))
        for peer in peers:
            self._add(peer.name, self.run_peer(peer))
        usage, printed = self._python("-m", "benchmarks.ceiling", str(self.store), str(self.bundle))
        self.ceilings.append(json.loads(printed.splitlines()[-1]))
        whole = self.results[OURS][-1]
        part = self.run_ours([*ENGINES[OURS], "--limit", str(max(1, whole.images // 10))])
        slope_s = (whole.usage.cpu_s - part.usage.cpu_s) / (whole.images - part.images)
        self.beyond_us.append(1e6 * (slope_s - ceiling_cpu_s(self.ceilings[-1])))
        usage, _ = self._python("-c", "import torch")
        self.imports_s.append(usage.wall_s)

    def _add(self, name: str, measured: Measured) -> None:
        self.results.setdefault(name, []).append(measured)

    def _python(self, *arguments: str) -> tuple[Usage, str]:
        return measure([sys.executable, *arguments], self.folder)

    def run_ours(self, options: list[str]) -> Measured:
        usage, parts = measure_labelling(self.store, self.bundle, self.folder, *options)
        images = sum(pq.read_metadata(path).num_rows for path in parts)
        first_part_s = parts[0].stat().st_mtime - usage.began
        return Measured(images, usage, steady_rate(parts), first_part_s)

    def run_peer(self, peer: Peer) -> Measured:
        command = ["-m", f"benchmarks.peers.{peer.module}", str(self.store), str(self.bundle)]
        usage, printed = measure([str(peer.python), *command], self.folder)
        steady = json.loads(printed.splitlines()[-1])
        labels = self.folder / "labels.csv"
        images = len(labels.read_text().splitlines())
        labels.unlink()
        rate = steady["images"] / steady["seconds"] if steady["images"] else None
        return Measured(images, usage, rate)


def ceiling_cpu_s(ceiling: dict[str, dict[str, float]]) -> float:
    return ceiling["decode"]["cpu_s"] + ceiling["model"]["cpu_s"]


def ratio(ours: list[Measured], theirs: list[Measured], of: str) -> str:
    """Return the median over pairs of ours to theirs, in images/s or images a CPU second."""

    def value(run: Measured) -> float | None:
        if of == "steady":
            return run.steady
        return run.images / (run.usage.wall_s if of == "whole" else run.usage.cpu_s)

    values = [(value(a), value(b)) for a, b in zip(ours, theirs, strict=True)]
    found = [a / b for a, b in values if a is not None and b is not None]
    return f"{median(found):.2f}×" if found else "–"


def report(bench: Bench) -> str:
    """Return the tables."""
    lines = [
        "| | images/s, whole | images/s, steady | CPU ms an image | peak MiB | first part, s |"
        " cifar-ray is: whole | steady | CPU | to the float32 loop: steady | CPU |",
        "|---|" + "---|" * 10,
    ]
    ours, float32 = bench.results[OURS], bench.results.get(FLOAT32)
    for name, runs in bench.results.items():
        steady = [run.steady for run in runs if run.steady is not None]
        firsts = [run.first_part_s for run in runs if run.first_part_s is not None]
        cells = [
            name,
            f"{median(run.images / run.usage.wall_s for run in runs):,.1f}",
            f"{median(steady):,.1f}" if steady else "–",
            f"{median(run.usage.cpu_s / run.images * 1000 for run in runs):.2f}",
            f"{median(run.usage.peak_bytes for run in runs) / 2**20:,.0f}",
            f"{median(firsts):.1f}" if firsts else "–",
        ]
        own = name == OURS
        cells += ["–"] * 3 if own else [ratio(ours, runs, of) for of in ("whole", "steady", "cpu")]
        cells += [ratio(runs, float32, of) for of in ("steady", "cpu")] if float32 else ["–"] * 2
        lines.append("| " + " | ".join(cells) + " |")
    lines += [f"| {name}: not installed (`make bench-peers`) |" for name in bench.absent]
    return "\n".join([*lines, "", *ceiling_lines(bench)])


def ceiling_lines(bench: Bench) -> list[str]:
    last = bench.ceilings[-1]
    rates = [
        1 / sum(1 / part["images_per_s"] for part in ceiling.values()) for ceiling in bench.ceilings
    ]
    shares = [
        run.steady / rate
        for run, rate in zip(bench.results[OURS], rates, strict=True)
        if run.steady is not None
    ]
    parts = "; ".join(
        f"{kind} alone {median(one[kind]['images_per_s'] for one in bench.ceilings):,.0f} images/s,"
        " "
        f"{1e6 * median(one[kind]['cpu_s'] for one in bench.ceilings):,.0f} µs of CPU an image "
        f"({last[kind]['name']})"
        for kind in ("decode", "model")
    )
    reached = f"{median(shares):.0%}" if shares else "–"
    return [
        f"- Ceiling on the same cores: {median(rates):,.1f} images/s; {parts}.",
        f"- The local engine's steady state is {reached} of it.",
        f"- CPU an image beyond decode and model: {median(bench.beyond_us):,.0f} µs, from "
        f"{min(bench.beyond_us):,.0f} to {max(bench.beyond_us):,.0f} in the pairs.",
        f"- A bare `import torch` took {median(bench.imports_s):.1f} s in the same pairs.",
    ]


def installed(peer: Peer) -> bool:
    if not peer.needs:
        return True
    found = peer.python.parents[1].glob(f"lib/python*/site-packages/{peer.needs}/__init__.py")
    return next(found, None) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="drawn", help=f"{', '.join(STORES)}, or a folder")
    parser.add_argument("--model", default="box", help="box, a bundle's folder, or a network")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--limit", type=int, help="take the first N images of the store only")
    parser.add_argument("--peers", default=",".join(PEERS), help="some of these, or none")
    parser.add_argument("--ray", action="store_true", help="measure the Ray engine too")
    arguments = parser.parse_args()
    names = [] if arguments.peers == "none" else arguments.peers.split(",")
    if not set(names) <= set(PEERS):
        parser.error(f"--peers: allowed are {', '.join(PEERS)}, or none")
    chosen = [PEERS[name] for name in names]
    with tempfile.TemporaryDirectory(prefix="cifar-ray-bench-") as name:
        folder = Path(name)
        store = folder / "store"
        store.mkdir()
        if arguments.store in STORES:
            STORES[arguments.store](store)
        else:
            shutil.copytree(arguments.store, store, dirs_exist_ok=True)
        for surplus in sorted(store.iterdir())[arguments.limit or sys.maxsize :]:
            surplus.unlink()
        bundle = bundle_of(arguments.model, folder)
        bench = Bench(store, bundle.path, folder)
        bench.absent = [peer.name for peer in chosen if not installed(peer)]
        # So that the graph is converted and cached, which happens once for a model.
        bench.run_ours([*ENGINES[OURS], "--limit", "1"])
        load = os.getloadavg()[0]
        for _ in range(arguments.pairs):
            bench.pair(
                [OURS, RAY][: 1 + arguments.ray], [peer for peer in chosen if installed(peer)]
            )
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "openvino", "ray"))
    print(
        f"\n{bench.results[OURS][0].images:,} images of the store `{arguments.store}`, {bundle.id} "
        f"({bundle.spec.trained_on.dataset}); {arguments.pairs} pairs; {usable_cores()} cores "
        f"({detect_instruction_set()}, {platform.machine()}), load {load:.0f} to "
        f"{os.getloadavg()[0]:.0f}; Python {platform.python_version()}, {versions}.\n"
    )
    print(report(bench))


if __name__ == "__main__":
    main()
