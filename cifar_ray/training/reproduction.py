"""The reports' recipes in turn: how long each will take, and what came of them, in one table.

Every recipe is a run of its own below RUNS, which goes on or is left alone as any run is; so the
whole goes on after any stop, and counts what `cifar-ray train` wrote there by itself.
"""

import csv
import io
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.recipes.reports import REPORTED, Reported
from cifar_ray.config.training import TrainingConfig, TrainingSpec
from cifar_ray.errors import InputError
from cifar_ray.models import registry
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.transfer import pretrained_tensors
from cifar_ray.runs import EvaluationRun, TrainingRun
from cifar_ray.storage import FolderStore
from cifar_ray.training.data.dataset import LabelledImages
from cifar_ray.training.device import use_threads
from cifar_ray.training.loop import Ranks, Trainer
from cifar_ray.training.pipeline import IMAGENET, input_size

CIFAR10_IMAGES = 50_000
MEASURED_STEPS, MEASURED_S = 3, 1.0
"""So many steps, again and again for so long: one step of a small network says little."""
LOSSY_FROM, LOSSY_POINTS = 0.85, 0.034
"""On JPEG images of quality 75 a network that reaches 94.0 % on the originals reached 90.6 %."""
NO_WEIGHTS = "not run here: no weights"
NOT_RUN = "not run here"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known of a recipe before it is trained."""

    recipe: str
    minutes: float
    """At this machine's speed, if no early stopping ends it before."""
    obstacle: str = ""
    """Why it cannot be trained here."""


class Planner:
    """Measures runs, and looks once for each network's weights."""

    def __init__(self) -> None:
        self.lacking: dict[str | None, bool] = {}

    def plan(self, spec: TrainingSpec) -> Plan:
        """Measure some steps of a run, and look whether the weights that it needs can be had."""
        done = len(_history(TrainingRun(Path(spec.run))))
        minutes = estimated_minutes(spec.config, torch.device(spec.device), spec.threads, done)
        lacking = spec.config.transfer.pretrained and self._lacks_weights(spec)
        return Plan(spec.config.recipe, minutes, NO_WEIGHTS if lacking else "")

    def _lacks_weights(self, spec: TrainingSpec) -> bool:
        published = registry.get(spec.config.network).pretrained
        if published not in self.lacking:
            self.lacking[published] = not _has_weights(spec)
        return self.lacking[published]


def _has_weights(spec: TrainingSpec) -> bool:
    try:
        pretrained_tensors(spec.config.network, Path(spec.weights) if spec.weights else None)
    except InputError:
        return False
    return True


def estimated_minutes(
    config: TrainingConfig, device: torch.device, threads: int, epochs_done: int = 0
) -> float:
    """Return the minutes that the rest of training on CIFAR-10 takes, by the time of some steps."""
    with use_threads(threads):
        trainer = Trainer(config, registry.build(config.network, 10), IMAGENET, device, Ranks())
        steps = trainer.batches.num_steps(num_training_images(config))
        seconds = 0.0
        frozen = min(config.transfer.frozen_epochs, config.epochs)
        for begin, end in pairwise((0, frozen, config.epochs)):
            num_epochs = end - max(begin, epochs_done)
            if num_epochs > 0:
                seconds += _step_seconds(trainer, begin) * steps * num_epochs
        return seconds / 60


def _history(run: TrainingRun) -> list[dict[str, Any]]:
    """Return a row for each epoch that was trained."""
    rows: list[dict[str, Any]] = []
    if run.history.exists():
        rows = json.loads(run.history.read_text())
    return rows


def num_training_images(config: TrainingConfig) -> int:
    """Return how many of CIFAR-10's training images a config trains on."""
    held_out = config.test_fraction if config.splits.leave_test_images else 0.0
    left = round(CIFAR10_IMAGES * (1 - config.validation_fraction - held_out))
    return config.splits.num_training_images or left


def _step_seconds(trainer: Trainer, epoch: int) -> float:
    """Time steps on random images; one before them is not counted."""
    side, batch_size = input_size(trainer.config), trainer.config.batch_size
    images = LabelledImages(
        torch.randint(0, 256, (batch_size * MEASURED_STEPS, side, side, 3), dtype=torch.uint8),
        torch.arange(batch_size * MEASURED_STEPS) % 10,
        tuple("0123456789"),
        (side, side, side, side),
    )
    trainer.train_epoch(epoch, images.select(torch.arange(batch_size)), lambda step: None)
    started, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - started < MEASURED_S:
        trainer.train_epoch(epoch, images, lambda step: None)
        steps += MEASURED_STEPS
    return (time.perf_counter() - started) / steps


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; shares of 1, None where there is nothing to say."""

    recipe: str
    network: str
    parameters: int
    reported_accuracy: float | None
    to_reach: float | None
    """The reported accuracy, less what JPEG's losses cost where these images have them."""
    accuracy: float | None
    reported_precision: float | None
    precision: float | None
    reported_recall: float | None
    recall: float | None
    reported_f1: float | None
    f1: float | None
    reported_loss: float | None
    loss: float | None
    num_images: int | None
    """That the figures are of."""
    epochs: int | None
    training_minutes: float | None
    images_per_second: float | None
    remark: str


def rows(runs: Path, states: dict[str, str], lossy: bool) -> Iterator[Row]:
    """Yield a row for each recipe; `states` says of those without metrics why they have none."""
    for name, reported in REPORTED.items():
        run = TrainingRun(runs / name)
        metrics: dict[str, Any] = {}
        if run.metrics.exists():
            metrics = json.loads(run.metrics.read_text())
        config = get_recipe(name)
        if not metrics and (history := _history(run)):
            states = {**states, name: _how_far(history, config)}
        remarks = [] if metrics else [states.get(name, NOT_RUN)]
        remarks += [reported.remark] if reported.remark else []
        yield _row(config, reported, metrics, lossy, "; ".join(remarks))


def _how_far(history: list[dict[str, Any]], config: TrainingConfig) -> str:
    best = max(row["validation_accuracy"] for row in history)
    return (
        f"stopped after {len(history)} of {config.epochs} epochs, with {best:.2%} of the validation"
        " images right at best"
    )


def _row(
    config: TrainingConfig, reported: Reported, metrics: dict[str, Any], lossy: bool, remark: str
) -> Row:
    seconds, epochs = metrics.get("training_seconds"), metrics.get("epochs")
    trained = num_training_images(config) * (epochs or 0)
    to_reach = reported.accuracy
    if to_reach is not None and lossy and to_reach > LOSSY_FROM:
        to_reach = round(to_reach - LOSSY_POINTS, 4)
    return Row(
        recipe=config.recipe,
        network=config.network,
        parameters=registry.get(config.network).parameters,
        reported_accuracy=reported.accuracy,
        to_reach=to_reach,
        accuracy=metrics.get("accuracy"),
        reported_precision=reported.precision,
        precision=metrics.get("precision_macro"),
        reported_recall=reported.recall,
        recall=metrics.get("recall_macro"),
        reported_f1=reported.f1,
        f1=metrics.get("f1_macro"),
        reported_loss=reported.loss,
        loss=metrics.get("loss"),
        num_images=metrics.get("num_images"),
        epochs=epochs,
        training_minutes=seconds / 60 if seconds else None,
        images_per_second=trained / seconds if seconds else None,
        remark=remark,
    )


def trained(runs: Path) -> list[str]:
    """Return the recipes that are trained to their end, in the order of the table."""
    return [name for name in REPORTED if TrainingRun(runs / name).metrics.exists()]


def is_compared(comparison: EvaluationRun, runs: list[TrainingRun]) -> bool:
    """Tell whether the page is of these runs' bundles already."""
    if not comparison.metrics.exists():
        return False
    content = json.loads(comparison.metrics.read_text())
    there = [metrics["model"] for metrics in content.get("models", [content])]
    return there == [Bundle.load(run.bundle).id for run in runs]


def write_table(runs: Path, table: list[Row], heading: str) -> None:
    """Write `table.csv` and `table.md`; `heading` says of what machine and data."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Row)])
    writer.writeheader()
    writer.writerows(asdict(row) for row in table)
    store = FolderStore(runs)
    store.write("table.csv", text.getvalue().encode())
    store.write("table.md", f"{heading}\n\n{markdown(table)}".encode())
    store.sweep()


def markdown(table: list[Row]) -> str:
    """Return the table for people: percent, and precision, recall and F1 in one column."""
    titles = (
        "recipe",
        "parameters",
        "accuracy reported",
        "to reach on these images",
        "reached",
        "precision, recall, F1 reported",
        "reached",
        "loss reported",
        "reached",
        "epochs",
        "minutes",
        "images/s",
        "remark",
    )
    lines = [titles, ("---",) * len(titles), *(_cells(row) for row in table)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"`{row.recipe}`",
        f"{row.parameters:,}",
        _percent(row.reported_accuracy),
        _percent(row.to_reach),
        f"**{_percent(row.accuracy)}**" if row.accuracy is not None else "",
        _percent(row.reported_precision, row.reported_recall, row.reported_f1),
        _percent(row.precision, row.recall, row.f1),
        "" if row.reported_loss is None else f"{row.reported_loss:.4f}",
        "" if row.loss is None else f"{row.loss:.4f}",
        "" if row.epochs is None else f"{row.epochs}",
        "" if row.training_minutes is None else f"{row.training_minutes:.0f}",
        "" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
        row.remark,
    )


def _percent(*values: float | None) -> str:
    return ", ".join(f"{value:.2%}" for value in values if value is not None)
