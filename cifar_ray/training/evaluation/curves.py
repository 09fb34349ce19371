"""What the report draws and lists besides the numbers of `metrics.json`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from cifar_ray.training.evaluation.metrics import Labels

GRID = np.linspace(0, 1, 1001)
"""Rates of false alarms at which the curves of classes are averaged."""


@dataclass(frozen=True, slots=True)
class Roc:
    """A receiver operating characteristic, of one class against the rest or of their mean."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often images of `label` were taken for `predicted`; ids index the label names."""

    label: int
    predicted: int
    number: int
    share: float
    """Of the images of `label`."""


def class_roc(scores: NDArray[np.float64], labels: Labels) -> dict[int, Roc]:
    """Return the curve of each class that has images and is not alone, of N×C probabilities."""
    curves = {}
    for label in np.unique(labels).tolist():
        is_class = labels == label
        if not is_class.all():
            false_positive, true_positive, _ = roc_curve(is_class, scores[:, label])
            curves[label] = Roc(false_positive, true_positive)
    return curves


def macro_roc(curves: dict[int, Roc]) -> Roc:
    """Return the mean of the classes' curves at equal rates of false alarms.

    Its area is the macro AUC but for the width of the grid.
    """
    rates = [
        np.interp(GRID, curve.false_positive_rate, curve.true_positive_rate)
        for curve in curves.values()
    ]
    return Roc(np.insert(GRID, 0, 0), np.insert(np.mean(rates, axis=0), 0, 0))


def top_confusions(matrix: NDArray[np.int64], limit: int) -> list[Confusion]:
    """Return the most frequent mistakes of a C×C matrix, whose rows are the true classes."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        Confusion(int(i), int(j), int(wrong[i, j]), float(wrong[i, j] / matrix[i].sum()))
        for i, j in pairs
        if wrong[i, j]
    ]


def surest_mistakes(
    probabilities: NDArray[np.float64], predicted: Labels, labels: Labels, limit: int
) -> list[int]:
    """Return the wrongly classified images, the one of the highest confidence first."""
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    chosen: list[int] = wrong[np.argsort(-confidence[wrong], kind="stable")[:limit]].tolist()
    return chosen
