import csv
from pathlib import Path

import pytest
import torch

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.recipes.reports import REPORTED
from cifar_ray.config.training import TrainingSpec
from cifar_ray.runs import EvaluationRun, TrainingRun
from cifar_ray.training.pipeline import write_json
from cifar_ray.training.reproduction import (
    NO_WEIGHTS,
    NOT_RUN,
    Planner,
    estimated_minutes,
    is_compared,
    num_training_images,
    rows,
    trained,
    write_table,
)
from tests.unit.models.bundles import make_bundle

METRICS = {
    "accuracy": 0.7,
    "precision_macro": 0.71,
    "recall_macro": 0.7,
    "f1_macro": 0.69,
    "loss": 0.9,
    "num_images": 5000,
    "epochs": 10,
    "training_seconds": 400.0,
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    run = TrainingRun(tmp_path / "runs" / "cnn-122k")
    run.folder.mkdir(parents=True)
    write_json(run.metrics, METRICS)
    return tmp_path / "runs"


def test_each_report_has_a_row_and_only_what_was_run_has_figures(runs: Path) -> None:
    table = list(rows(runs, {"vgg16-frozen": NO_WEIGHTS}, lossy=True))
    assert [row.recipe for row in table] == list(REPORTED)
    by_name = {row.recipe: row for row in table}
    ours = by_name["cnn-122k"]
    assert (ours.accuracy, ours.f1, ours.epochs) == (0.7, 0.69, 10)
    assert ours.images_per_second == pytest.approx(40_000 * 10 / 400)
    assert by_name["vgg16-frozen"].remark.startswith(NO_WEIGHTS)
    assert by_name["cnn-2.9m"].remark == NOT_RUN
    assert [row.accuracy for row in table if row.recipe != "cnn-122k"] == [None] * (len(table) - 1)


def test_a_run_that_was_stopped_says_how_far_it_came(runs: Path) -> None:
    stopped = TrainingRun(runs / "resnet-blocks")
    stopped.folder.mkdir()
    write_json(stopped.history, [{"validation_accuracy": 0.5}, {"validation_accuracy": 0.4}])
    found = {row.recipe: row.remark for row in rows(runs, {}, lossy=True)}
    assert found["resnet-blocks"] == (
        "stopped after 2 of 35 epochs, with 50.00% of the validation images right at best"
    )


def test_only_figures_above_85_percent_are_lowered_and_only_for_lossy_images(runs: Path) -> None:
    lossy = {row.recipe: row.to_reach for row in rows(runs, {}, lossy=True)}
    assert lossy["resnet-blocks"] == pytest.approx(0.8534)
    assert lossy["cnn-122k"] == 0.7106
    original = {row.recipe: row.to_reach for row in rows(runs, {}, lossy=False)}
    assert original["resnet-blocks"] == 0.8874


def test_the_table_is_written_for_people_and_for_programs(runs: Path) -> None:
    write_table(runs, list(rows(runs, {}, lossy=True)), "# Heading")
    text = (runs / "table.md").read_text()
    assert text.startswith("# Heading\n\n| recipe |")
    assert "| `cnn-122k` | 122,570 | 71.06% | 71.06% | **70.00%** |" in text
    with (runs / "table.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(REPORTED)
    assert read[0]["accuracy"] == "0.7"


def test_images_are_counted_as_the_split_leaves_them() -> None:
    counts = {name: num_training_images(get_recipe(name)) for name in REPORTED}
    assert counts["cnn-122k"] == 40_000
    assert counts["cnn-2.9m"] == counts["resnet50-mlp"] == 16_250
    assert counts["cnn-bn"] == 47_500


def test_minutes_grow_with_epochs() -> None:
    config = get_recipe("cnn-122k")
    short = estimated_minutes(config, torch.device("cpu"), 1)
    assert short > 0
    # A hundred times the epochs, so that no load of the machine can turn it round.
    longer = config.model_copy(update={"epochs": 1000})
    assert estimated_minutes(longer, torch.device("cpu"), 1) > short
    assert estimated_minutes(longer, torch.device("cpu"), 1, epochs_done=1000) == 0


def test_a_recipe_without_weights_has_an_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = get_recipe("resnet18-finetune")
    spec = TrainingSpec(
        config=config, data="cifar10", run="r", weights=str(tmp_path), code_version="0"
    )
    assert Planner().plan(spec).obstacle == NO_WEIGHTS  # the folder has no resnet18.pth


def test_the_page_is_made_again_only_when_another_bundle_is_there(runs: Path) -> None:
    assert trained(runs) == ["cnn-122k"]
    run, comparison = TrainingRun(runs / "cnn-122k"), EvaluationRun(runs / "comparison")
    bundle = make_bundle(run.bundle)
    assert not is_compared(comparison, [run])
    comparison.folder.mkdir()
    write_json(comparison.metrics, {"model": bundle.id})
    assert is_compared(comparison, [run])
    write_json(comparison.metrics, {"models": [{"model": bundle.id}, {"model": "another"}]})
    assert not is_compared(comparison, [run])
