"""Which plots the report has, of which numbers, and what they show in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cifar_ray.training.evaluation import plots
from cifar_ray.training.evaluation.curves import class_roc, macro_roc, top_confusions
from cifar_ray.training.evaluation.evaluation import Evaluation
from cifar_ray.training.evaluation.metrics import reliability
from cifar_ray.training.evaluation.pictures import Picture
from cifar_ray.training.evaluation.plots import Draw

MAX_GRID_CLASSES = 20
"""Up to here a class has a cell, a bar and a row of its own; beyond, the page shows extremes."""
MAX_CONFUSIONS = 15
NUM_WORST_CURVES = 3
LOSSES = {"train_loss": "training images", "validation_loss": "validation images"}
ACCURACIES = {"train_accuracy": "training images", "validation_accuracy": "validation images"}


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot: its file's name, its heading, what it shows in words, and how it is drawn."""

    name: str
    title: str
    alt: str
    draw: Draw


def model_plots(evaluation: Evaluation) -> list[Plot]:
    """Return the plots of one model."""
    return [
        *_confusion(evaluation),
        *_roc(evaluation),
        _reliability(evaluation),
        *_training([evaluation]),
    ]


def comparison_plots(evaluations: Sequence[Evaluation]) -> list[Plot]:
    """Return the plots that hold several models against each other."""
    return [
        *_compare_roc(evaluations),
        _compare_reliability(evaluations),
        *_training(evaluations),
        _compare_classes(evaluations),
    ]


def picture_plots(mistakes: Sequence[Picture], sample: Sequence[Picture]) -> list[Plot]:
    """Return the page's pictures as grids, for those who want them as files."""
    grids = {
        "predictions": [(picture.pixels, _caption(picture)) for picture in sample],
        "mistakes": [(picture.pixels, _caption(picture)) for picture in mistakes],
        "gradcam": [
            cell
            for picture in mistakes
            if picture.predicted_heat is not None and picture.label_heat is not None
            for cell in (
                (picture.pixels, _caption(picture)),
                (picture.predicted_heat, f"evidence for\n{picture.predicted}"),
                (picture.label_heat, f"evidence for\n{picture.label}"),
            )
        ],
    }
    return [
        Plot(name, name, name, partial(plots.picture_grid, cells=cells, columns=columns))
        for (name, cells), columns in zip(grids.items(), (5, 6, 6), strict=True)
        if cells
    ]


def _caption(picture: Picture) -> str:
    if picture.is_right:
        return f"{picture.predicted}\n{picture.confidence:.2f}, right"
    return f"{picture.predicted} {picture.confidence:.2f}\nis {picture.label}"


def _confusion(evaluation: Evaluation) -> list[Plot]:
    names = evaluation.held_out.label_names
    matrix = np.array(evaluation.metrics["confusion_matrix"], dtype=np.int64)
    confusions = top_confusions(matrix, MAX_CONFUSIONS)
    alt = "No image was taken for another class."
    if confusions:
        first = confusions[0]
        alt = (
            f"The most frequent mistake is {names[first.label]} taken for"
            f" {names[first.predicted]}, {first.number} times."
        )
    if len(names) <= MAX_GRID_CLASSES:
        draw: Draw = partial(plots.confusion_grid, matrix=matrix, names=names)
        return [Plot("confusion_matrix", "Confusion matrix", f"Confusion matrix. {alt}", draw)]
    if not confusions:
        return []
    draw = partial(plots.confusion_bars, confusions=confusions, names=names)
    title = "Most frequent confusions"
    return [Plot("confusion_matrix", title, f"Bars of the most frequent confusions. {alt}", draw)]


def _roc(evaluation: Evaluation) -> list[Plot]:
    names = evaluation.held_out.label_names
    curves = class_roc(evaluation.probabilities, evaluation.held_out.labels)
    if not curves:
        return []
    area = {label: evaluation.metrics["per_class"][names[label]]["auc"] for label in curves}
    worst = sorted(curves, key=lambda label: area[label])[:NUM_WORST_CURVES]
    macro = evaluation.metrics["auc_macro"]
    shown = {f"mean of the classes, AUC {macro:.4f}": macro_roc(curves)}
    shown |= {f"{names[label]}, AUC {area[label]:.4f}": curves[label] for label in worst}
    background = list(curves.values()) if len(curves) <= MAX_GRID_CLASSES else []
    alt = f"ROC curves. The mean area is {macro:.4f}; the least are those of "
    alt += ", ".join(f"{names[label]} ({area[label]:.4f})" for label in worst)
    draw = partial(plots.roc, curves=shown, background=background)
    return [Plot("roc", "ROC curves", f"{alt}.", draw)]


def _reliability(evaluation: Evaluation) -> Plot:
    labels = evaluation.held_out.labels
    curves = {"as the network gives it": reliability(evaluation.uncalibrated, labels)}
    temperature = evaluation.bundle.spec.temperature
    if temperature is not None:
        after = reliability(evaluation.probabilities, labels)
        curves[f"with temperature {temperature:.2f}"] = after
    errors = " and ".join(f"{curve.error:.2%} {name}" for name, curve in curves.items())
    alt = f"Accuracy by confidence. The expected calibration error is {errors}."
    return Plot(
        "reliability", "Reliability", alt, partial(plots.reliability_diagram, curves=curves)
    )


def _training(evaluations: Sequence[Evaluation]) -> list[Plot]:
    """Return loss and accuracy by epoch, of the models whose history is known."""
    found = []
    for name, columns, form in (("loss", LOSSES, "{:.3f}"), ("accuracy", ACCURACIES, "{:.1%}")):
        curves = {
            text if len(evaluations) == 1 else f"{evaluation.name}, {text}": _column(rows, column)
            for evaluation in evaluations
            if (rows := evaluation.history)
            for column, text in columns.items()
            # Several models side by side: what they do on images that they were not trained on.
            if (len(evaluations) == 1 or column.startswith("validation"))
            and any(column in row for row in rows)
        }
        if curves:
            ends = "; ".join(
                f"{text}: {form.format(values[0])} to {form.format(values[-1])}"
                for text, (_, values) in curves.items()
            )
            alt = f"{name.capitalize()} by epoch, first to last. {ends}."
            draw = partial(plots.training_curves, curves=curves, ylabel=name)
            found.append(Plot(name, f"{name.capitalize()} by epoch", alt, draw))
    return found


def _column(rows: Sequence[Mapping[str, Any]], column: str) -> plots.Curve:
    """Return a curve of the epochs that have the column: a search may change what images are."""
    found = [(row["epoch"] + 1, row[column]) for row in rows if column in row]
    epochs, values = np.array(found, dtype=np.float64).T
    return epochs, values


def _compare_roc(evaluations: Sequence[Evaluation]) -> list[Plot]:
    labels = evaluations[0].held_out.labels
    curves = {
        f"{evaluation.name}, AUC {evaluation.metrics['auc_macro']:.4f}": macro_roc(found)
        for evaluation in evaluations
        if (found := class_roc(evaluation.probabilities, labels))
    }
    alt = f"Mean ROC curves: {'; '.join(curves)}."
    plot = Plot("roc", "ROC curves, mean of the classes", alt, partial(plots.roc, curves=curves))
    return [plot] if curves else []


def _compare_reliability(evaluations: Sequence[Evaluation]) -> Plot:
    labels = evaluations[0].held_out.labels
    curves = {item.name: reliability(item.probabilities, labels) for item in evaluations}
    errors = "; ".join(f"{name} {curve.error:.2%}" for name, curve in curves.items())
    return Plot(
        "reliability",
        "Reliability, calibrated",
        f"Accuracy by confidence. Expected calibration errors: {errors}.",
        partial(plots.reliability_diagram, curves=curves),
    )


def _compare_classes(evaluations: Sequence[Evaluation]) -> Plot:
    """F1 by class; of many classes those on which the models differ most."""
    per_model = {item.name: item.metrics["per_class"] for item in evaluations}
    tables = list(per_model.values())
    names = [name for name in tables[0] if tables[0][name]["num_images"]]
    spread = {name: np.ptp([table[name]["f1"] for table in tables]) for name in names}
    title = "F1 by class"
    if len(names) > MAX_GRID_CLASSES:
        names = sorted(names, key=lambda name: -spread[name])[:MAX_GRID_CLASSES]
        title = "F1 of the classes on which they differ most"
    models = {name: [table[label]["f1"] for label in names] for name, table in per_model.items()}
    widest = max(names, key=lambda name: spread[name])
    return Plot(
        "f1_by_class",
        title,
        f"{title}. The models differ most on {widest}, by {spread[widest]:.3f}.",
        partial(plots.class_points, classes=names, models=models),
    )
