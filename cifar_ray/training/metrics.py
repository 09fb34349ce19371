"""Metrics on held-out images, and the temperature that makes confidences honest."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

ECE_BINS = 15
TEMPERATURES = (0.05, 20.0)
Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long an evaluation took."""

    seconds: float
    num_images: int


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Return the temperature of the lowest loss over held-out images (N×C logits, N labels).

    C. Guo et al., "On Calibration of Modern Neural Networks" (arXiv:1706.04599). Targets are
    smoothed by 1 / (N + 1), after J. Platt, "Probabilistic outputs for support vector machines"
    (1999): else a few images that are all classified correctly would make every confidence 1.
    """
    smoothing = 1 / (len(labels) + 1)

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(logits / np.exp(log_temperature), axis=1)
        of_label = log_probabilities[np.arange(len(labels)), labels]
        smoothed = (1 - smoothing) * of_label + smoothing * log_probabilities.mean(axis=1)
        return float(-smoothed.mean())

    low, high = np.log(TEMPERATURES)
    best = minimize_scalar(loss, bounds=(low, high), method="bounded")
    return float(np.exp(best.x))


def cross_entropy(logits: Logits, labels: Labels, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood."""
    log_probabilities = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def expected_calibration_error(probabilities: NDArray[np.float64], labels: Labels) -> float:
    """Mean gap between confidence and accuracy over 15 bins of equal width, weighted by size."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = [abs(confidence[bins == b].sum() - correct[bins == b].sum()) for b in range(ECE_BINS)]
    return float(sum(gaps) / len(labels))


def energy_quantiles(logits: Logits, quantiles: tuple[float, ...]) -> tuple[float, ...]:
    """Quantiles of log-sum-exp of the logits: how strongly the network responds to known images."""
    energies = logsumexp(logits.astype(np.float64), axis=1)
    return tuple(float(value) for value in np.quantile(energies, quantiles))


def evaluate(
    logits: Logits,
    labels: Labels,
    label_names: tuple[str, ...],
    temperature: float | None,
    timing: Timing,
) -> dict[str, Any]:
    """Return what `metrics.json` holds, of N×C logits and N labels."""
    probabilities = softmax(logits.astype(np.float64) / (temperature or 1.0), axis=1)
    predicted = logits.argmax(axis=1)
    classes = list(range(len(label_names)))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0
    )
    return {
        "accuracy": float((predicted == labels).mean()),
        "precision_macro": float(np.mean(precision)),
        "recall_macro": float(np.mean(recall)),
        "f1_macro": float(np.mean(f1)),
        "auc_macro": _auc(probabilities, labels),
        "loss": cross_entropy(logits, labels, temperature or 1.0),
        "ece": expected_calibration_error(probabilities, labels),
        "ece_uncalibrated": expected_calibration_error(
            softmax(logits.astype(np.float64), axis=1), labels
        ),
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "num_images": int(support[i]),
            }
            for i, name in enumerate(label_names)
        },
        "confusion_matrix": confusion_matrix(labels, predicted, labels=classes).tolist(),
        "num_images": timing.num_images,
        "seconds": timing.seconds,
        "images_per_second": timing.num_images / timing.seconds,
    }


def _auc(probabilities: NDArray[np.float64], labels: Labels) -> float | None:
    """One-against-rest area under the ROC curve, mean over the classes that occur."""
    areas = [
        roc_auc_score(labels == label, probabilities[:, label])
        for label in np.unique(labels)
        if (labels != label).any()
    ]
    return float(np.mean(areas)) if areas else None
