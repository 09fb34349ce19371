import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score

from cifar_ray.training.evaluation.curves import (
    class_roc,
    macro_roc,
    surest_mistakes,
    top_confusions,
)


def scores(number: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, number)
    raw = rng.random((number, 3)) + np.eye(3)[labels] * 0.4
    return raw / raw.sum(axis=1, keepdims=True), labels


def test_the_area_under_each_curve_is_its_auc() -> None:
    probabilities, labels = scores()
    for label, curve in class_roc(probabilities, labels).items():
        area = auc(curve.false_positive_rate, curve.true_positive_rate)
        assert area == pytest.approx(roc_auc_score(labels == label, probabilities[:, label]))


def test_the_area_under_the_mean_curve_is_the_mean_area() -> None:
    probabilities, labels = scores()
    mean = macro_roc(class_roc(probabilities, labels))
    expected = roc_auc_score(labels, probabilities, multi_class="ovr")
    assert auc(mean.false_positive_rate, mean.true_positive_rate) == pytest.approx(
        expected, abs=2e-3
    )


def test_a_class_without_images_or_without_others_has_no_curve() -> None:
    probabilities, labels = scores()
    assert set(class_roc(probabilities, np.where(labels == 2, 0, labels))) == {0, 1}
    assert class_roc(probabilities, np.zeros_like(labels)) == {}


def test_confusions_are_mistakes_alone_the_most_frequent_first() -> None:
    matrix = np.array([[5, 2, 3], [0, 9, 1], [0, 0, 0]])
    found = top_confusions(matrix, 2)
    assert [(item.label, item.predicted, item.number) for item in found] == [(0, 2, 3), (0, 1, 2)]
    assert found[0].share == pytest.approx(0.3)
    assert len(top_confusions(matrix, 99)) == 3
    assert matrix[0, 0] == 5


def test_the_surest_mistakes_are_wrong_and_come_by_confidence() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]])
    found = surest_mistakes(probabilities, probabilities.argmax(axis=1), np.array([0, 0, 0, 0]), 2)
    assert found == [1, 3]
