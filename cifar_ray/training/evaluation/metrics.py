"""Metrics on held-out images, and the temperature that makes confidences honest."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
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


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence against accuracy in `ECE_BINS` bins of equal width; sums over a bin's images."""

    count: NDArray[np.int64]
    confidence_sum: NDArray[np.float64]
    correct: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap of the two, weighted by the bins' sizes."""
        return float(np.abs(self.confidence_sum - self.correct).sum() / self.count.sum())


def reliability(probabilities: NDArray[np.float64], labels: Labels) -> Reliability:
    """Sort images into bins by the probability of their first choice.

    C. Guo et al. (arXiv:1706.04599), section 2. A bin holds its upper border, not its lower one.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    return Reliability(
        np.bincount(bins, minlength=ECE_BINS).astype(np.int64),
        np.bincount(bins, confidence, minlength=ECE_BINS).astype(np.float64),
        np.bincount(bins, correct, minlength=ECE_BINS).astype(np.int64),
    )


def expected_calibration_error(probabilities: NDArray[np.float64], labels: Labels) -> float:
    """Mean gap between confidence and accuracy over 15 bins of equal width, weighted by size."""
    return reliability(probabilities, labels).error


def evaluate(
    logits: Logits,
    labels: Labels,
    label_names: tuple[str, ...],
    temperature: float | None,
    timing: Timing,
) -> dict[str, Any]:
    """Return what `metrics.json` holds, of N×C logits and N labels.

    Macro values are means over the classes that have images: for the others there is nothing to
    find, and their recall, F1 and AUC are None. The precision of a class that has images but was
    never predicted counts as 0.
    """
    probabilities = softmax(logits.astype(np.float64) / (temperature or 1.0), axis=1)
    predicted = logits.argmax(axis=1)
    correct = int((predicted == labels).sum())
    per_class = _per_class(probabilities, predicted, labels, label_names)
    return {
        "accuracy": correct / len(labels),
        "accuracy_interval": list(wilson_interval(correct, len(labels))),
        "num_correct": correct,
        **{f"{name}_macro": _mean(per_class, name) for name in ("precision", "recall", "f1")},
        "auc_macro": _mean(per_class, "auc"),
        "loss": cross_entropy(logits, labels, temperature or 1.0),
        "ece": expected_calibration_error(probabilities, labels),
        "ece_uncalibrated": expected_calibration_error(
            softmax(logits.astype(np.float64), axis=1), labels
        ),
        "temperature": temperature,
        "per_class": per_class,
        "confusion_matrix": confusion_matrix(
            labels, predicted, labels=range(len(label_names))
        ).tolist(),
        "num_images": timing.num_images,
        "seconds": timing.seconds,
        "images_per_second": timing.num_images / timing.seconds,
    }


def wilson_interval(correct: int, number: int) -> tuple[float, float]:
    """95 % interval of an accuracy: within it lie the true ones that make the count unsurprising.

    E. B. Wilson, "Probable inference" (JASA 1927). It speaks of the chance in which images were
    drawn; not of that of training, which needs several seeds.
    """
    interval = binomtest(correct, number).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(only_first: int, only_second: int) -> float:
    """p-value of two models being equally good, of the images that only one of them got right.

    The exact test of Q. McNemar, "Sampling error of the difference between correlated
    proportions" (Psychometrika 1947).
    """
    number = only_first + only_second
    return float(binomtest(only_first, number).pvalue) if number else 1.0


def _per_class(
    probabilities: NDArray[np.float64],
    predicted: Labels,
    labels: Labels,
    label_names: tuple[str, ...],
) -> dict[str, dict[str, float | int | None]]:
    classes = range(len(label_names))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0
    )
    num_predicted = np.bincount(predicted, minlength=len(label_names))
    return {
        name: {
            "precision": float(precision[i]) if support[i] or num_predicted[i] else None,
            "recall": float(recall[i]) if support[i] else None,
            "f1": float(f1[i]) if support[i] else None,
            "auc": _auc(probabilities[:, i], labels == i),
            "num_images": int(support[i]),
            "num_predicted": int(num_predicted[i]),
        }
        for i, name in enumerate(label_names)
    }


def _auc(scores: NDArray[np.float64], is_class: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve of one class against the rest; None if either has no images."""
    if is_class.all() or not is_class.any():
        return None
    return float(roc_auc_score(is_class, scores))


def _mean(per_class: dict[str, dict[str, float | int | None]], name: str) -> float | None:
    """Mean over the classes that have images; None where no class has a value."""
    values = [
        value
        for numbers in per_class.values()
        if numbers["num_images"] and (value := numbers[name]) is not None
    ]
    return float(np.mean(values)) if values else None
