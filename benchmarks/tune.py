"""A search beside the recipe's own parameters, and ASHA beside random: `python -m benchmarks.tune`.

Three questions, each a table of its own:

    default    the best of a 16-trial ASHA search and the recipe as it is, each trained in full with
               three seeds; accuracy on test images, which the search has never seen
    budget     ASHA and random search with as many epochs: the best validation accuracy by the time
               that each number of epochs was trained, over five seeds of the search
    overhead   wall time of a search over the sum of its trainings' time, divided by the trials that
               run at once; counted from the second trial of each worker, when actors are warm
"""

import argparse
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import matplotlib as mpl
import ray
import torch
from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table

from cifar_ray import __version__
from cifar_ray.config.machine import usable_cores
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.search import SearchSpec
from cifar_ray.config.spaces import Parameters, apply, describe, get_space
from cifar_ray.config.training import TrainingConfig, TrainingSpec, override
from cifar_ray.on_ray.session import ray_session
from cifar_ray.on_ray.tuning.search import search
from cifar_ray.runs import TrainingRun
from cifar_ray.training.loop import Ranks
from cifar_ray.training.pipeline import Watcher, train
from cifar_ray.training.resume import open_run
from cifar_ray.training.search.opening import open_search
from cifar_ray.training.search.record import Records

console = Console(soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class Setting:
    data: str
    space: str
    folder: Path
    config: TrainingConfig
    trials: int
    train_seeds: int
    search_seeds: int


@dataclass(frozen=True)
class Searched:
    records: Records
    curve: list[tuple[int, float]]
    """Epochs trained so far, and the best validation accuracy by then."""
    wall_s: float
    """From the first epoch's end to the last trial's."""


def run_search(setting: Setting, name: str, scheduler: str, trials: int, seed: int) -> Searched:
    """Search in a folder of its own; a search that is there already is only read."""
    folder = setting.folder / f"{name}-{seed}"
    spec = SearchSpec(
        config=setting.config,
        space=get_space(setting.space, setting.config),
        search="random",
        scheduler=scheduler,
        num_trials=trials,
        seed=seed,
        data=setting.data,
        run=str(folder),
        code_version=__version__,
    )
    open_search(spec)
    kept = folder / "curve.json"
    curve: list[tuple[int, float]] = []
    clock: list[float] = []

    def watch(records: Records) -> None:
        epochs = sum(len(trial.history) for trial in records.trials.values())
        best = records.best()
        if best is not None and best.accuracy is not None and (not curve or epochs > curve[-1][0]):
            curve.append((epochs, best.accuracy))
            clock.append(time.monotonic())

    if not kept.exists():
        search(Records.load(spec), None, watch)
        wall_s = time.monotonic() - clock[0]
        kept.write_text(json.dumps({"curve": curve, "wall_s": wall_s}))
    content = json.loads(kept.read_text())
    records = Records.load(spec)
    records.write_parquet()
    return Searched(records, [(n, a) for n, a in content["curve"]], content["wall_s"])


def epochs_of(searched: Searched) -> int:
    return sum(len(trial.history) for trial in searched.records.trials.values())


def accuracies_on_test(setting: Setting, name: str, parameters: Parameters) -> list[float]:
    """Train in full with each seed and return the accuracies on test images."""
    found = []
    for seed in range(setting.train_seeds):
        run = setting.folder / f"full-{name}-{seed}"
        config = override(apply(setting.config, parameters), [f"seed={seed}"])
        spec = TrainingSpec(
            config=config,
            data=setting.data,
            run=str(run),
            threads=usable_cores(),
            code_version=__version__,
        )
        if open_run(spec) is None:
            train(spec, Ranks(), Watcher())
        found.append(json.loads(TrainingRun(run).metrics.read_text())["accuracy"])
    return found


def against_default(setting: Setting) -> None:
    searched = run_search(setting, "asha", "asha", setting.trials, 0)
    best = searched.records.best()
    assert best is not None
    table = Table("", "test accuracy", "sd", "each seed")
    for name, parameters in (("recipe as it is", {}), ("best of the search", best.parameters)):
        values = accuracies_on_test(setting, name.split()[0], parameters)
        spread = f"{100 * stdev(values):.2f}" if len(values) > 1 else ""
        each = ", ".join(f"{100 * value:.2f}" for value in values)
        table.add_row(name, f"{100 * mean(values):.2f} %", spread, each)
    console.print(table)
    whole = epochs_of(searched) / setting.config.epochs
    console.print(
        f"The search: {setting.trials} trials, {epochs_of(searched)} epochs, as many as "
        f"{whole:.1f} full trainings. Its best: {describe(best.parameters)}; "
        f"{best.accuracy:.2%} on validation images."
    )


def budget(setting: Setting) -> None:
    """Give random search as many full trainings as ASHA's epochs make, rounded up."""
    results: dict[str, list[Searched]] = {"asha": [], "random": []}
    for seed in range(setting.search_seeds):
        asha = run_search(setting, "asha", "asha", setting.trials, seed)
        results["asha"].append(asha)
        fulls = -(-epochs_of(asha) // setting.config.epochs)
        results["random"].append(run_search(setting, "random", "none", fulls, seed))
    least = min(epochs_of(one) for runs in results.values() for one in runs)
    marks = [round(least * share) for share in (0.25, 0.5, 0.75, 1.0)]
    table = Table("best validation accuracy after", *(f"{mark} epochs" for mark in marks))
    for name, runs in results.items():
        cells = []
        for mark in marks:
            values = [best_by(one, mark) for one in runs]
            spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{100 * mean(values):.2f} %{spread}")
        table.add_row(f"{name}, {len(runs)} seeds", *cells)
    console.print(table)
    plot(results, setting.folder / "tune.png")


def best_by(searched: Searched, epochs: int) -> float:
    reached = [accuracy for trained, accuracy in searched.curve if trained <= epochs]
    return max(reached, default=0.0)


def plot(results: dict[str, list[Searched]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    for (name, runs), colour in zip(results.items(), ("#0072b2", "#c04a00"), strict=True):
        for number, one in enumerate(runs):
            xs, ys = zip(*one.curve, strict=True)
            label = name if number == 0 else None
            axes.step(xs, ys, where="post", color=colour, alpha=0.6, label=label)
    axes.set_xlabel("epochs trained over all trials")
    axes.set_ylabel("best validation accuracy so far")
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")
    console.print(f"Plot: {path}")


def overhead(setting: Setting) -> None:
    """Warm workers only: one Ray for all, and the clock starts with the first epoch's end."""
    searched = run_search(setting, "overhead", "none", 2 * usable_cores(), 0)
    trained = sum(trial.seconds for trial in searched.records.trials.values())
    # The first epochs of the trials that run at once end before the clock starts, or about then.
    first = sum(
        trial.history[0]["seconds"]
        for number, trial in searched.records.trials.items()
        if number < usable_cores()
    )
    ratio = searched.wall_s * usable_cores() / (trained - first)
    console.print(
        f"Search {searched.wall_s:.1f} s × {usable_cores()} at once, trainings "
        f"{trained - first:.1f} s without validation: ratio {ratio:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["default", "budget", "overhead"])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--recipe", default="cnn-122k")
    parser.add_argument("--space", default="optimizer")
    parser.add_argument("--folder", type=Path, required=True, help="kept; a rerun goes on")
    parser.add_argument(
        "--set", action="append", default=[], help="of the recipe, for a reduced run"
    )
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--train-seeds", type=int, default=3)
    parser.add_argument("--search-seeds", type=int, default=5)
    options = parser.parse_args()
    mpl.use("agg")
    folder = options.folder.expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    setting = Setting(
        options.data,
        options.space,
        folder,
        override(get_recipe(options.recipe), options.set),
        options.trials,
        options.train_seeds,
        options.search_seeds,
    )
    console.print(
        f"{platform.machine()}, {usable_cores()} cores, load {os.getloadavg()[0]:.1f}; torch "
        f"{torch.__version__}, ray {ray.__version__}, cifar-ray {__version__}; {options.recipe} "
        f"{' '.join(options.set)}, space {options.space}"
    )
    with ray_session("local"):
        for part in options.parts:
            {"default": against_default, "budget": budget, "overhead": overhead}[part](setting)


if __name__ == "__main__":
    main()
