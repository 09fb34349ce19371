import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from cifar_ray.training.evaluation.metrics import (
    Timing,
    cross_entropy,
    evaluate,
    expected_calibration_error,
    fit_temperature,
    mcnemar,
    reliability,
    wilson_interval,
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
    predicted = logits.argmax(axis=1)
    assert found["precision_macro"] == pytest.approx(
        precision_score(labels, predicted, average="macro")
    )
    assert found["recall_macro"] == pytest.approx(recall_score(labels, predicted, average="macro"))
    assert found["auc_macro"] == pytest.approx(
        roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )
    assert found["num_correct"] == (labels == predicted).sum()
    assert found["loss"] == pytest.approx(log_loss(labels, probabilities))
    assert np.sum(found["confusion_matrix"]) == found["num_images"] == 500
    assert found["images_per_second"] == 250
    assert list(found["per_class"]) == list(NAMES)


def test_cross_entropy_of_certain_and_right_scores_is_zero() -> None:
    assert cross_entropy(np.eye(3, dtype=np.float32) * 100, np.arange(3)) == pytest.approx(0)


def test_means_leave_out_classes_without_images() -> None:
    logits, labels = sampled(100, scale=1.0)
    labels = np.where(labels == 2, 0, labels)
    found = evaluate(logits, labels, NAMES, None, Timing(1.0, 100))
    frog = found["per_class"]["frog"]
    assert (frog["num_images"], frog["recall"], frog["f1"], frog["auc"]) == (0, None, None, None)
    assert frog["precision"] == 0  # it was predicted, and never right
    predicted = logits.argmax(axis=1)
    for name, score in (("f1", f1_score), ("recall", recall_score)):
        expected = score(labels, predicted, labels=[0, 1], average="macro")
        assert found[f"{name}_macro"] == pytest.approx(expected)
    assert found["auc_macro"] == pytest.approx(
        np.mean([found["per_class"][name]["auc"] for name in ("cat", "dog")])
    )


def test_a_class_that_is_neither_there_nor_predicted_has_no_numbers() -> None:
    logits = np.array([[2, 1, 0], [1, 2, 0]], dtype=np.float32)
    found = evaluate(logits, np.array([0, 0]), NAMES, None, Timing(1.0, 2))
    assert found["per_class"]["frog"] == {
        "precision": None,
        "recall": None,
        "f1": None,
        "auc": None,
        "num_images": 0,
        "num_predicted": 0,
    }
    assert found["auc_macro"] is None  # of one class alone there is no curve
    assert found["confusion_matrix"] == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_a_class_that_is_never_predicted_has_a_precision_of_zero() -> None:
    logits = np.array([[2, 1, 0]] * 4, dtype=np.float32)
    found = evaluate(logits, np.array([0, 0, 1, 1]), NAMES, None, Timing(1.0, 4))
    assert found["per_class"]["dog"]["precision"] == 0
    assert found["precision_macro"] == pytest.approx(0.25)
    assert found["per_class"]["cat"]["auc"] == pytest.approx(0.5)  # all scores are tied


def test_of_equal_scores_the_first_class_is_predicted() -> None:
    found = evaluate(np.ones((1, 3), np.float32), np.array([0]), NAMES, None, Timing(1.0, 1))
    assert found["accuracy"] == 1


@pytest.mark.parametrize(
    ("correct", "number", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_the_interval_is_wilsons(correct: int, number: int, low: float, high: float) -> None:
    """The last one is the example of Newcombe (Statistics in Medicine, 1998), table I."""
    assert wilson_interval(correct, number) == pytest.approx((low, high), abs=1e-4)


def test_mcnemar_is_a_coin_that_is_tossed_for_each_difference() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == pytest.approx(1)
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)


def test_bins_hold_their_upper_border() -> None:
    probabilities = np.array([[1.0, 0.0], [0.6, 0.4], [0.61, 0.39]])
    found = reliability(probabilities, np.array([0, 1, 0]))
    assert found.count[[8, 9, 14]].tolist() == [1, 1, 1]
    assert found.correct[[8, 9, 14]].tolist() == [0, 1, 1]
    assert found.error == pytest.approx((0 + 0.6 + 0.39) / 3)
