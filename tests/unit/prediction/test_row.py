import numpy as np
import pytest

from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.models.scoring import probabilities
from cifar_ray.prediction.row import Outcome, Scoring, ShardRows, row_schema
from cifar_ray.prediction.sources import Entry

LABELS = ("cat", "dog", "frog")


def rows(logits: list[list[float]], outcomes: list[Outcome], **scoring: object) -> list[dict]:
    """Return the rows of one batch; logits may be longer than outcomes, as padding makes them."""
    config = LabellingConfig(top_k=2, probabilities=True)
    entries = [Entry(f"{i}.jpg", "v", i) for i in range(len(outcomes))]
    shard = ShardRows("0000-0000000", entries, [f"file:///{i}.jpg" for i in range(len(outcomes))])
    shard.add(outcomes, np.array(logits, dtype=np.float32), None)
    settings = {"temperature": 1.0, **scoring}
    table = shard.table(Scoring(labels=LABELS, model="m", config=config, **settings))
    assert table.schema == row_schema(config)
    return table.to_pylist()


def ok() -> Outcome:
    return Outcome(sha256=b"\0" * 32, width=1, height=2, num_bytes=3)


def test_the_best_label_comes_first_with_its_probability() -> None:
    (row,) = rows([[1.0, 3.0, 2.0]], [ok()])
    assert (row["label"], row["label_id"], row["top_labels"]) == ("dog", 1, ["dog", "frog"])
    expected = np.exp([1, 3, 2]) / np.exp([1, 3, 2]).sum()
    assert row["probabilities"] == pytest.approx(expected, rel=1e-6)
    assert row["confidence"] == row["top_scores"][0] == pytest.approx(expected[1], rel=1e-6)


def test_temperature_divides_the_logits() -> None:
    (row,) = rows([[1.0, 3.0, 2.0]], [ok()], temperature=2.0)
    expected = np.exp([0.5, 1.5, 1.0]) / np.exp([0.5, 1.5, 1.0]).sum()
    assert row["probabilities"] == pytest.approx(expected, rel=1e-6)


def test_without_calibration_there_are_scores_but_no_confidence() -> None:
    (row,) = rows([[1.0, 3.0, 2.0]], [ok()], temperature=None)
    assert row["confidence"] is None
    assert row["top_scores"][0] == pytest.approx(0.665, abs=1e-3)


def test_equal_scores_keep_the_order_of_the_labels() -> None:
    (row,) = rows([[2.0, 2.0, 2.0]], [ok()])
    assert row["top_labels"] == ["cat", "dog"]


def test_a_failed_image_has_no_label_and_its_neighbours_keep_theirs() -> None:
    failed = Outcome(status="truncated", error="ends early")
    first, second, third = rows([[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]], [ok(), failed, ok()])
    assert (first["label"], third["label"]) == ("cat", "frog")
    nulls = (
        "label",
        "label_id",
        "confidence",
        "top_labels",
        "top_scores",
        "probabilities",
        "width",
    )
    assert [second[name] for name in nulls] == [None] * len(nulls)
    assert (second["status"], second["error"]) == ("truncated", "ends early")


def test_scores_that_are_not_finite_fail_that_image_alone() -> None:
    first, second = rows([[np.nan, 0, 0], [0, 1.0, 0]], [ok(), ok()])
    assert (first["status"], first["label"]) == ("model_failed", None)
    assert (second["status"], second["label"]) == ("ok", "dog")


def test_padding_behind_the_last_image_makes_no_row() -> None:
    assert len(rows([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]], [ok()])) == 1


def test_large_logits_do_not_overflow() -> None:
    assert probabilities(np.array([[1e4, 0.0]], dtype=np.float32), 0.05).tolist() == [[1.0, 0.0]]
