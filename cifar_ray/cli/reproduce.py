"""`cifar-ray train cifar10 --recipe reports`: all recipes of the reports, and what came of them."""

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_ray import __version__
from cifar_ray.cli.boundary import UNEXPECTED, Ended, console
from cifar_ray.cli.display import duration
from cifar_ray.cli.downloads import bring
from cifar_ray.errors import CifarRayError

if TYPE_CHECKING:
    from cifar_ray.config.training import TrainingSpec
    from cifar_ray.training.reproduction import Plan

COMPARISON = "comparison"
"""Folder of the page, beside the runs."""


def reproduce(
    runs: Path,
    spec_of: "Callable[[str, str], TrainingSpec]",
    train: "Callable[[TrainingSpec], dict[str, Any]]",
    max_minutes: float | None,
) -> None:
    """Say what each recipe will take, train what can be trained, write the table and the page."""
    from cifar_ray.config.recipes.reports import REPORTED
    from cifar_ray.training.data.sources import cifar10_is_lossy
    from cifar_ray.training.reproduction import rows, write_table
    from cifar_ray.training.resume import open_run

    bring("cifar10")
    lossy = cifar10_is_lossy()
    specs = {name: spec_of(name, str(runs / name)) for name in REPORTED}
    waiting = {name: spec for name, spec in specs.items() if open_run(spec) is None}
    states = {plan.recipe: plan.obstacle for plan in _plans(waiting, max_minutes) if plan.obstacle}
    failed = []
    try:
        for name, spec in waiting.items():
            if name in states:
                continue
            console.print(Text(f"\n{name}", style="bold"))
            try:
                train(spec)
            except CifarRayError as error:
                console.print(Text(f"{name} failed: {error}", style="red"))
                states[name] = f"failed: {str(error).splitlines()[0]}"
                failed.append(name)
    finally:
        write_table(runs, list(rows(runs, states, lossy)), _heading(lossy))
        console.print(Text(f"\nThe table is in {runs}/table.md and table.csv."))
    _compare(runs)
    if failed:
        console.print(Text(f"Failed: {', '.join(failed)}. The same command tries again."))
        raise Ended(UNEXPECTED)


def _plans(specs: "dict[str, TrainingSpec]", max_minutes: float | None) -> "list[Plan]":
    """Measure each recipe and print what it will take."""
    from dataclasses import replace

    from cifar_ray.training.reproduction import NOT_RUN, Planner

    planner = Planner()
    table = Table("recipe", "on this machine", "")
    plans = []
    for name, spec in specs.items():
        console.print(Text(f"Measuring some steps of {name}."), style="dim")
        found = planner.plan(spec)
        time = f"about {duration(found.minutes * 60)}"
        if max_minutes is not None and found.minutes > max_minutes and not found.obstacle:
            found = replace(found, obstacle=f"{NOT_RUN}: {time} on this machine")
        table.add_row(name, time, found.obstacle)
        plans.append(found)
    if plans:
        minutes = sum(plan.minutes for plan in plans if not plan.obstacle)
        table.add_section()
        table.add_row("all that is trained", f"about {duration(minutes * 60)}", "")
        Console().print(table)
    return plans


def _compare(runs: Path) -> None:
    """Judge the bundles that there are by the same test images, on one page."""
    from cifar_ray.cli.evaluate import judge
    from cifar_ray.runs import EvaluationRun, TrainingRun
    from cifar_ray.training.reproduction import is_compared, trained

    names = trained(runs)
    if not names:
        console.print("No recipe is trained, and so there is no page that compares them.")
        return
    run = EvaluationRun(runs / COMPARISON)
    if not is_compared(run, [TrainingRun(runs / name) for name in names]):
        console.print(Text(f"Judging {len(names)} models by CIFAR-10's test images."))
        judge([str(runs / name) for name in names], "cifar10", run.folder)
    console.print(Text(f"The page that compares them is {run.report}."))


def _heading(lossy: bool) -> str:
    import torch

    images = (
        "on JPEG images, which cost networks above 85 % some 3.4 points" if lossy else "on CIFAR-10"
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return (
        f"# Training: what was reported and what is reached here\n\n"
        f"Made by `cifar-ray train cifar10 --recipe reports` of cifar-ray {__version__}, {images}; "
        f"{os.cpu_count()} cores, {device}, torch {torch.__version__}."
    )
