"""A search beside the recipe's own parameters, and ASHA beside random: `python -m benchmarks.tune`.

Three questions, each a table of its own; `--only` asks one of them:

    default    the best of a 16-trial ASHA search and the recipe as it is, each trained in full with
               three seeds; accuracy of the bundles on DATA's own test images (CIFAR-10's
               `test.parquet`), which neither the search nor any of these trainings looks at
    budget     ASHA and random search with the same number of epochs, which both use up: the best
               validation accuracy over epochs and over time, for five seeds of the search. Both
               draw the same trials in the same order; random search trains each in full
    overhead   what is left of the time of a search's workers when its trainings are taken away,
               validation and checkpoints with them: equal trials, one after another in each
               worker, counted from the end of its first until the end of its last

Searches may train as many epochs as 6 full trainings. Whatever ends the benchmark, the same command
goes on: no epoch whose checkpoint is kept is trained again.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from statistics import mean, stdev
from threading import Thread
from typing import Any

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
from cifar_ray.config.spaces import Parameters, Space, apply, describe, get_space, parse_space
from cifar_ray.config.training import TrainingConfig, TrainingSpec, override
from cifar_ray.on_ray.adjusting import replaced
from cifar_ray.on_ray.session import ray_session
from cifar_ray.on_ray.tuning import trainable
from cifar_ray.on_ray.tuning.search import search
from cifar_ray.training.evaluation.evaluate_bundles import evaluate_bundles
from cifar_ray.training.loop import EpochRow, Ranks
from cifar_ray.training.pipeline import Watcher, train, write_json
from cifar_ray.training.resume import open_run
from cifar_ray.training.search.budget import EpochBudget
from cifar_ray.training.search.opening import open_search
from cifar_ray.training.search.record import Records
from cifar_ray.training.search.trial import Report, train_trial

FULL_TRAININGS = 6
"""As many may the epochs of a search make."""
EQUAL = "learning_rate = {log_uniform = [3e-4, 1e-2]}"
"""Trials that take equally long."""
EQUAL_EPOCHS = 2
EQUAL_ROUNDS = 6
"""Trials a worker."""
CLOCK = "clock.json"
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of epochs and of time, at which the table compares."""
COLOURS = {"asha": "#0072b2", "random": "#c04a00"}

console = Console(soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class Setting:
    data: str
    space: Space
    folder: Path
    config: TrainingConfig
    trials: int
    train_seeds: int
    search_seeds: int
    plot: Path

    @property
    def max_epochs(self) -> int:
        return FULL_TRAININGS * self.config.epochs


@dataclass(frozen=True)
class Point:
    """What a search had reached."""

    epochs: int
    seconds: float
    """From the search's start, over all starts of the benchmark."""
    accuracy: float
    """The best so far, on validation images."""


@dataclass(frozen=True)
class Searched:
    records: Records
    curve: list[Point]
    wall_s: float
    """Of all of it: Tune's start, workers' start, the last trial alone."""


def run_search(
    setting: Setting, name: str, scheduler: str, trials: int, seed: int, max_epochs: int | None
) -> Searched:
    """Search in a folder of its own, or go on there; one that is there whole is read."""
    folder = setting.folder / f"{name}-{seed}"
    kept = folder / "curve.json"
    spec = SearchSpec(
        config=setting.config,
        space=setting.space,
        search="random",
        scheduler=scheduler,
        num_trials=trials,
        epoch_budget=max_epochs,
        seed=seed,
        data=setting.data,
        run=str(folder),
        code_version=__version__,
    )
    open_search(spec)
    content: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    curve = [Point(**point) for point in content.get("curve", [])]
    before_s = curve[-1].seconds if curve else 0.0
    started = time.monotonic()

    def keep(wall_s: float | None) -> None:
        write_json(kept, {"curve": [asdict(point) for point in curve], "wall_s": wall_s})

    def watch(records: Records) -> None:
        epochs, best = records.epochs_trained, records.best()
        known = curve[-1].epochs if curve else 0
        if best is not None and best.accuracy is not None and epochs > known:
            curve.append(Point(epochs, before_s + time.monotonic() - started, best.accuracy))
            keep(None)

    records = Records.load(spec)
    if content.get("wall_s") is None:
        search(records, None, watch)
        watch(records)
        keep(before_s + time.monotonic() - started)
    records.write_parquet()
    return Searched(records, curve, json.loads(kept.read_text())["wall_s"])


def full_trainings(setting: Setting, name: str, parameters: Parameters) -> list[TrainingSpec]:
    """Return what to train, a run a seed."""
    configs = [
        override(apply(setting.config, parameters), [f"seed={seed}"])
        for seed in range(setting.train_seeds)
    ]
    return [
        TrainingSpec(
            config=config,
            data=setting.data,
            run=str(setting.folder / f"full-{name}-{config.seed}"),
            threads=1,
            code_version=__version__,
        )
        for config in configs
    ]


def train_in_full(spec: TrainingSpec) -> Path:
    """Train, unless that is done; return the run."""
    if open_run(spec) is None:
        train(spec, Ranks(), Watcher())
    return Path(spec.run)


def accuracies_on_test(setting: Setting, runs: Sequence[Path]) -> list[float]:
    """Judge the runs' bundles by DATA's own test images, as `cifar-ray evaluate` does."""
    found = evaluate_bundles(list(map(str, runs)), setting.data, setting.folder / "evaluation")
    if found[0].held_out.split != "test":
        raise SystemExit(f"--data {setting.data} has no test images of its own.")
    console.print(f"On {found[0].held_out.description}:")
    return [evaluation.metrics["accuracy"] for evaluation in found]


def against_default(setting: Setting) -> None:
    limit = setting.max_epochs
    searched = run_search(setting, "asha", "asha", setting.trials, 0, limit)
    best = searched.records.best()
    assert best is not None
    specs = full_trainings(setting, "recipe", {})
    specs += full_trainings(setting, "best", best.parameters)
    # Side by side, a core each: two threads gain little on so small a network.
    with ProcessPoolExecutor(usable_cores(), get_context("spawn"), end_with_parent) as pool:
        runs = list(pool.map(train_in_full, specs))
    accuracies = accuracies_on_test(setting, runs)
    of_recipe, of_best = accuracies[: setting.train_seeds], accuracies[setting.train_seeds :]
    table = Table("", "test accuracy", "sd", "each seed")
    for name, values in (("recipe as it is", of_recipe), ("best of the search", of_best)):
        spread = f"{100 * stdev(values):.2f}" if len(values) > 1 else ""
        each = ", ".join(f"{100 * value:.2f}" for value in values)
        table.add_row(name, f"{100 * mean(values):.2f} %", spread, each)
    console.print(table)
    states = [trial.state for trial in searched.records.trials.values()]
    console.print(
        f"The best beats the recipe by {100 * (mean(of_best) - mean(of_recipe)):+.2f} points. The "
        f"search: {setting.trials} trials, {searched.records.epochs_trained} epochs of at most "
        f"{limit}, those of {FULL_TRAININGS} full trainings; {states.count('finished')} finished, "
        f"{states.count('stopped')} stopped by ASHA, {states.count('budget')} for want of epochs; "
        f"{searched.wall_s:.0f} s. Its best: {describe(best.parameters)}; {best.accuracy:.2%} on "
        "validation images."
    )


def end_with_parent() -> None:
    """End this process when its parent is killed: the next start trains in the same folders."""
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()


def budget(setting: Setting) -> None:
    """Give both the same epochs, and ASHA more trials than it can begin with them."""
    limit = setting.max_epochs
    results: dict[str, list[Searched]] = {"asha": [], "random": []}
    for seed in range(setting.search_seeds):
        for name, scheduler, trials in (
            ("asha", "asha", limit),
            ("random", "none", FULL_TRAININGS),
        ):
            one = run_search(setting, f"budget-{name}", scheduler, trials, seed, limit)
            results[name].append(one)
            console.print(
                f"{name}, seed {seed}: {one.records.epochs_trained} epochs, {one.wall_s:.0f} s, "
                f"{sum(bool(t.history) for t in one.records.trials.values())} trials"
            )
    least_s = min(one.wall_s for runs in results.values() for one in runs)
    for whole, field, unit in ((limit, "epochs", "epochs"), (least_s, "seconds", "s")):
        marks = [round(whole * share) for share in SHARES]
        table = Table("best validation accuracy after", *(f"{mark} {unit}" for mark in marks))
        for row in at_marks(results, field, marks):
            table.add_row(*row)
        console.print(table)
    plot(results, setting.plot)


def at_marks(
    results: dict[str, list[Searched]], field: str, marks: Sequence[float]
) -> list[list[str]]:
    """Return a row a search: its best accuracy by each mark, mean and deviation over seeds."""
    rows = []
    for name, runs in results.items():
        cells = []
        for mark in marks:
            values = [best_by(one, field, mark) for one in runs]
            spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{100 * mean(values):.2f} %{spread}")
        rows.append([f"{name}, {len(runs)} seeds", *cells])
    return rows


def best_by(searched: Searched, field: str, mark: float) -> float:
    reached = [point.accuracy for point in searched.curve if getattr(point, field) <= mark]
    return max(reached, default=0.0)


def plot(results: dict[str, list[Searched]], path: Path) -> None:
    """Draw a line a search, and the mean over seeds, over epochs and over time."""
    figure, places = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    labels = {"epochs": "epochs trained over all trials", "seconds": "seconds from the start"}
    for axes, (field, label) in zip(places, labels.items(), strict=True):
        for name, runs in results.items():
            lines = [[getattr(point, field) for point in one.curve] for one in runs]
            for xs, one in zip(lines, runs, strict=True):
                ys = [point.accuracy for point in one.curve]
                axes.step(xs, ys, where="post", color=COLOURS[name], alpha=0.3, linewidth=1)
            # The mean is of all seeds, so that it begins with the last one's first epoch.
            xs = sorted({x for line in lines for x in line if x >= max(line[0] for line in lines)})
            ys = [mean(best_by(one, field, x) for one in runs) for x in xs]
            axes.step(xs, ys, where="post", color=COLOURS[name], linewidth=2.5, label=name)
        axes.set_xlabel(label)
    places[0].set_ylabel("best validation accuracy so far")
    places[0].legend(loc="lower right")
    figure.savefig(path, dpi=150, bbox_inches="tight")
    console.print(f"Plot: {path}")


@dataclass(frozen=True)
class Clock:
    """A trial's training by the clock of its worker."""

    worker: int
    ended: float
    busy_s: float
    """Without the reports, for which the worker waits for Tune."""


def timed_train_trial(
    spec: TrainingSpec, base: TrainingConfig, ranks: Ranks, report: Report, budget: EpochBudget
) -> None:
    """Train a trial as its worker does, and leave its clock in its folder."""
    busy_s, since = 0.0, time.monotonic()

    def told(row: EpochRow) -> None:
        nonlocal busy_s, since
        busy_s += time.monotonic() - since
        report(row)
        since = time.monotonic()

    train_trial(spec, base, ranks, told, budget)
    ended = time.monotonic()
    clock = Clock(os.getpid(), ended, busy_s + ended - since)
    (Path(spec.run) / CLOCK).write_text(json.dumps(asdict(clock)))


def occupied(clocks: Sequence[Clock]) -> tuple[float, float]:
    """Return seconds of warm workers, and those of them that were training, over all workers."""
    elapsed_s = busy_s = 0.0
    for worker in {clock.worker for clock in clocks}:
        first, *warm = sorted(
            (clock for clock in clocks if clock.worker == worker), key=lambda clock: clock.ended
        )
        elapsed_s += max((clock.ended for clock in warm), default=first.ended) - first.ended
        busy_s += sum(clock.busy_s for clock in warm)
    return elapsed_s, busy_s


def overhead(setting: Setting) -> None:
    """Equal trials, so that no worker waits at the end for another's longer one."""
    config = override(setting.config, [f"epochs={EQUAL_EPOCHS}"])
    equal = replace(setting, config=config, space=parse_space("equal", EQUAL, config))
    # Workers are sent the function that their trials call, so that they call this one.
    trials = EQUAL_ROUNDS * usable_cores()
    with replaced(trainable, "train_trial", timed_train_trial):
        searched = run_search(equal, "overhead", "none", trials, 0, None)
    folders = [searched.records.run.trial(number).folder for number in range(trials)]
    clocks = [Clock(**json.loads((folder / CLOCK).read_text())) for folder in folders]
    elapsed_s, busy_s = occupied(clocks)
    assert busy_s, "no worker trained a second trial"
    console.print(
        f"Warm workers {elapsed_s:.1f} s, of which trainings with validation and checkpoints "
        f"{busy_s:.1f} s: ratio {elapsed_s / busy_s:.3f}. {trials} trials of {EQUAL_EPOCHS} "
        f"epochs; the search as a whole, with the workers' start, {searched.wall_s:.1f} s."
    )


def main() -> None:
    questions = {"default": against_default, "budget": budget, "overhead": overhead}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=questions, help="instead of all three")
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
    parser.add_argument("--plot", type=Path, help="of `budget`; by default FOLDER/tune.svg")
    options = parser.parse_args()
    mpl.use("agg")
    folder = options.folder.expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    config = override(get_recipe(options.recipe), options.set)
    setting = Setting(
        options.data,
        get_space(options.space, config),
        folder,
        config,
        options.trials,
        options.train_seeds,
        options.search_seeds,
        options.plot or folder / "tune.svg",
    )
    console.print(
        f"{platform.machine()}, {usable_cores()} cores, load {os.getloadavg()[0]:.1f}; torch "
        f"{torch.__version__}, ray {ray.__version__}, cifar-ray {__version__}; {options.recipe} "
        f"{' '.join(options.set)}, space {options.space}"
    )
    with ray_session("local"):
        for name, answer in questions.items():
            if options.only in (None, name):
                started = time.monotonic()
                answer(setting)
                console.print(f"({name}: {time.monotonic() - started:.0f} s)\n")


if __name__ == "__main__":
    main()
