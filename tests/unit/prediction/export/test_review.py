"""Lists for review: what the model is unsure of, for a spreadsheet or for Label Studio."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cifar_ray.prediction.export.review import export_review
from tests.drawing import draw_folder
from tests.unit.prediction.finished_run import FinishedRun, finish_run

BELOW = 0.9


@pytest.fixture(params=[1.0, None], ids=["calibrated", "not calibrated"])
def run(tmp_path: Path, request: pytest.FixtureRequest) -> FinishedRun:
    draw_folder(tmp_path / "images", count=40)
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no picture")
    return finish_run(tmp_path / "images", tmp_path / "out", temperature=request.param)


def doubtful(out: Path) -> list[dict]:
    rows = pq.read_table(out / "predictions").to_pylist()
    found = [row for row in rows if row["status"] == "ok" and row["top_scores"][0] < BELOW]
    assert 0 < len(found) < len(rows)
    return found


def test_csv_has_the_doubtful_rows_and_room_for_a_better_label(
    run: FinishedRun, tmp_path: Path
) -> None:
    path = tmp_path / "review.csv"
    expected = doubtful(tmp_path / "out")
    assert export_review(run.store, path, BELOW, "csv", lambda rows: None) == len(expected)
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["key"], row["label"]) for row in rows] == [
        (row["key"], row["label"]) for row in expected
    ]
    assert {row["reviewed_label"] for row in rows} == {""}


def test_label_studio_gets_tasks_with_predictions(run: FinishedRun, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    expected = doubtful(tmp_path / "out")
    number = export_review(run.store, path, BELOW, "label-studio", lambda rows: None)
    tasks = json.loads(path.read_text(encoding="utf-8"))
    assert len(tasks) == number == len(expected)
    for task, row in zip(tasks, expected, strict=True):
        assert task["data"]["image"] == f"/data/local-files/?d={row['key']}"
        (prediction,) = task["predictions"]
        assert prediction["score"] == pytest.approx(row["top_scores"][0])
        assert prediction["result"][0]["value"] == {"choices": [row["label"]]}


def test_nothing_doubtful_is_a_list_without_tasks(run: FinishedRun, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    assert export_review(run.store, path, 0.0, "label-studio", lambda rows: None) == 0
    assert json.loads(path.read_text()) == []
