import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss

from cifar_ray.training.metrics import (
    Timing,
    cross_entropy,
    evaluate,
    expected_calibration_error,
    fit_temperature,
)

NAMES = ("cat", "dog", "frog")


def sampled(number: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, `scale` times those that the labels were drawn by."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (number, 3))
    shares = softmax(logits, axis=1)
    labels = np.array([rng.choice(3, p=share) for share in shares])
    return (logits * scale).astype(np.float32), labels


def test_the_temperature_finds_the_scale_that_labels_were_drawn_by() -> None:
    logits, labels = sampled(5000, scale=3.0)
    assert fit_temperature(logits, labels) == pytest.approx(3.0, rel=0.08)


def test_the_temperature_makes_confidences_honest() -> None:
    logits, labels = sampled(5000, scale=4.0)
    temperature = fit_temperature(logits, labels)
    before = expected_calibration_error(softmax(logits.astype(np.float64), axis=1), labels)
    after = expected_calibration_error(softmax(logits / np.float64(temperature), axis=1), labels)
    assert before > 0.1
    assert after < 0.03


def test_a_few_images_that_are_all_right_do_not_make_every_confidence_one() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    temperature = fit_temperature(logits, np.array([0, 1, 2, 0]))
    assert softmax(logits / temperature, axis=1).max() < 0.9


def test_calibration_error_is_the_weighted_gap_of_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10)
    labels = np.array([0] * 6 + [1] * 4)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.3)


def test_metrics_are_those_of_scikit_learn() -> None:
    logits, labels = sampled(500, scale=1.0)
    found = evaluate(logits, labels, NAMES, 2.0, Timing(2.0, 500))
    probabilities = softmax(logits.astype(np.float64) / 2.0, axis=1)
    assert found["accuracy"] == accuracy_score(labels, logits.argmax(axis=1))
    assert found["f1_macro"] == pytest.approx(
        f1_score(labels, logits.argmax(axis=1), average="macro")
    )
    assert found["loss"] == pytest.approx(log_loss(labels, probabilities))
    assert np.sum(found["confusion_matrix"]) == found["num_images"] == 500
    assert found["images_per_second"] == 250
    assert list(found["per_class"]) == list(NAMES)


def test_cross_entropy_of_certain_and_right_scores_is_zero() -> None:
    assert cross_entropy(np.eye(3, dtype=np.float32) * 100, np.arange(3)) == pytest.approx(0)


def test_a_class_without_images_counts_but_has_no_area_under_its_curve() -> None:
    logits, labels = sampled(100, scale=1.0)
    labels = np.where(labels == 2, 0, labels)
    found = evaluate(logits, labels, NAMES, None, Timing(1.0, 100))
    assert found["per_class"]["frog"]["num_images"] == 0
    assert 0 <= found["auc_macro"] <= 1
