"""`report.html` of an evaluation: one page that needs no other file and runs no script.

The page forbids itself scripts and requests.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from jinja2 import Template

from cifar_ray import __version__
from cifar_ray.pages import page_environment
from cifar_ray.runs import EvaluationRun
from cifar_ray.training.evaluation.curves import top_confusions
from cifar_ray.training.evaluation.evaluation import Evaluation
from cifar_ray.training.evaluation.figures import (
    MAX_GRID_CLASSES,
    Plot,
    comparison_plots,
    model_plots,
    picture_plots,
)
from cifar_ray.training.evaluation.metrics import mcnemar
from cifar_ray.training.evaluation.pictures import Picture, mistakes, sampled, to_uri
from cifar_ray.training.evaluation.plots import DARK, LIGHT, to_png

TEMPLATE = "evaluation.html.jinja"
MAX_LISTED_CONFUSIONS = 6
NUM_WORST, NUM_BEST = 12, 5
SMALL_NUMBER = 400
"""Images below which an accuracy is uncertain by some points."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a reader must know to judge the numbers."""

    chosen_on: str
    """What was chosen, and on which images."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot in the page, in a light and a dark dress."""

    title: str
    alt: str
    light: str
    dark: str


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class with its numbers."""

    name: str
    numbers: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """What the page says of one model."""

    evaluation: Evaluation
    figures: list[Figure]
    classes: list[ClassRow]
    """All, as the bundle orders them."""
    extremes: tuple[list[ClassRow], list[ClassRow]]
    """The worst and the best by F1 where all are too many to be read; else empty."""
    confusions: list[tuple[str, str, int, float]]
    """Label, prediction, images, share of the label's images."""
    mistakes: list[Picture]
    sample: list[Picture]


@dataclass(frozen=True, slots=True)
class Difference:
    """A model against the first one, on the same images."""

    points: float
    """Of accuracy, in per cent."""
    only_this: int
    """Images that this one alone got right."""
    only_first: int
    p_value: float


def write_report(
    run: EvaluationRun, evaluations: Sequence[Evaluation], provenance: Provenance
) -> None:
    """Write the page and its plots, of one model or of several on the same images."""
    run.plots.mkdir(parents=True, exist_ok=True)
    for stale in run.plots.glob("*.png"):
        stale.unlink()
    several = len(evaluations) > 1
    sections = [_section(run, evaluation, several) for evaluation in evaluations]
    comparison = _figures(run, comparison_plots(evaluations), "") if several else []
    page = _template().render(
        sections=sections,
        comparison=comparison,
        differences=[_difference(evaluations[0], other) for other in evaluations],
        held_out=evaluations[0].held_out,
        num_classes=len(np.unique(evaluations[0].held_out.labels)),
        provenance=provenance,
        warnings=[*provenance.warnings, *_warnings(evaluations[0])],
        version=__version__,
        written_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    run.report.write_text(page, encoding="utf-8", newline="\n")


def _section(run: EvaluationRun, evaluation: Evaluation, several: bool) -> Section:
    wrong, sample = mistakes(evaluation), sampled(evaluation)
    prefix = f"{evaluation.bundle.id}-" if several else ""
    figures = _figures(run, model_plots(evaluation), prefix)
    for plot in picture_plots(wrong, sample):
        (run.plots / f"{prefix}{plot.name}.png").write_bytes(to_png(plot.draw, LIGHT))
    names = evaluation.held_out.label_names
    matrix = np.array(evaluation.metrics["confusion_matrix"], dtype=np.int64)
    classes = [ClassRow(name, row) for name, row in evaluation.metrics["per_class"].items()]
    return Section(
        evaluation,
        figures,
        classes,
        _extremes(classes),
        [
            (names[item.label], names[item.predicted], item.number, item.share)
            for item in top_confusions(matrix, MAX_LISTED_CONFUSIONS)
        ],
        wrong,
        sample,
    )


def _figures(run: EvaluationRun, found: Sequence[Plot], prefix: str) -> list[Figure]:
    """Write each plot, and return it for the page."""
    figures = []
    for plot in found:
        light = to_png(plot.draw, LIGHT)
        (run.plots / f"{prefix}{plot.name}.png").write_bytes(light)
        uris = (_png_uri(data) for data in (light, to_png(plot.draw, DARK)))
        figures.append(Figure(plot.title, plot.alt, *uris))
    return figures


def _extremes(classes: list[ClassRow]) -> tuple[list[ClassRow], list[ClassRow]]:
    if len(classes) <= MAX_GRID_CLASSES:
        return [], []
    ranked = sorted(
        (row for row in classes if row.numbers["num_images"]), key=lambda row: row.numbers["f1"]
    )
    return ranked[:NUM_WORST], ranked[max(NUM_WORST, len(ranked) - NUM_BEST) :][::-1]


def _difference(first: Evaluation, other: Evaluation) -> Difference:
    labels = first.held_out.labels
    ours, theirs = other.predicted == labels, first.predicted == labels
    only_this, only_first = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    points = 100 * (only_this - only_first) / len(labels)
    return Difference(points, only_this, only_first, mcnemar(only_first, only_this))


def _warnings(evaluation: Evaluation) -> list[str]:
    found = []
    number = len(evaluation.held_out)
    if number < SMALL_NUMBER:
        low, high = evaluation.metrics["accuracy_interval"]
        found.append(
            f"{number} images are few: the accuracy may as well be {low:.1%} as {high:.1%}."
        )
    absent = sum(not row["num_images"] for row in evaluation.metrics["per_class"].values())
    if absent:
        found.append(
            f"{absent} of the {len(evaluation.held_out.label_names)} classes have no images here."
            " Means over classes leave them out."
        )
    return found


def _png_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _template() -> Template:
    environment = page_environment("cifar_ray.training.evaluation")
    environment.filters["decimal"] = lambda value: "–" if value is None else f"{value:.4f}"
    environment.filters["uri"] = to_uri
    return environment.get_template(TEMPLATE)
