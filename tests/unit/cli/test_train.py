"""`train` as a user gives it."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cifar_ray.config.recipes.reports import REPORTED
from cifar_ray.storage import open_store
from cifar_ray.storage.lease import hold
from cifar_ray.training.pipeline import write_json
from tests.drawing import draw_classes
from tests.unit.cli.conftest import Cli
from tests.unit.models.bundles import make_bundle


def test_a_run_is_trained_again_from_its_folder_to_the_same_weights(
    cli: Cli, tmp_path: Path
) -> None:
    draw_classes(tmp_path / "classes", each=12)
    first, again = tmp_path / "first", tmp_path / "again"
    settings = ("--set", "epochs=2", "--set", "augment.rotation_degrees=10")
    code, _ = cli("train", tmp_path / "classes", "--recipe", "cnn-122k", "--out", first, *settings)
    assert code == 0
    code, _ = cli("train", "--from", first, "--out", again)
    assert code == 0
    ours, expected = (load_file(f / "bundle" / "model.safetensors") for f in (again, first))
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    record = json.loads((again / "bundle" / "bundle.json").read_text())
    assert "--set augment.rotation_degrees=10" in record["trained_on"]["command"]


def test_a_second_training_in_the_place_of_one_that_runs_is_refused(
    cli: Cli, tmp_path: Path
) -> None:
    draw_classes(tmp_path / "classes", each=12)
    run = tmp_path / "run"
    arguments = ("--recipe", "cnn-122k", "--set", "epochs=1", "--out", run)
    assert cli("train", tmp_path / "classes", *arguments)[0] == 0
    (run / "metrics.json").unlink()
    with hold(open_store(str(run))):
        code, told = cli("train", tmp_path / "classes", *arguments)
    assert code == 2
    assert f"Process {os.getpid()} on" in told
    assert "works on" in told
    assert cli("train", tmp_path / "classes", *arguments)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["cifar10", "--out", "r"], "one of --recipe NAME and --from RUN"),
        (["cifar10", "--out", "r", "--recipe", "cnn-122k", "--from", "x"], "one of --recipe"),
        (["--out", "r", "--recipe", "cnn-122k"], "DATA is missing"),
        (["--out", "r", "--from", "nowhere"], "nowhere is no training run"),
        (["cifar10", "--out", "r", "--recipe", "reports", "--set", "epochs=1"], "as they are"),
        (["photos", "--out", "r", "--recipe", "reports"], "give `cifar10` for DATA"),
        (["cifar10", "--out", "r", "--recipe", "cnn-122k", "--local", "--dashboard"], "is Ray's"),
    ],
)
def test_what_does_not_go_together_is_told(cli: Cli, arguments: list[str], told: str) -> None:
    code, printed = cli("train", *arguments)
    assert code == 2
    assert told in " ".join(printed.split())


def test_mlflow_is_asked_for_by_the_name_of_its_extra_where_it_is_missing(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    run = tmp_path / "run"
    code, printed = cli("train", "cifar10", "--recipe", "cnn-122k", "--out", run, "--mlflow")
    assert code == 2
    assert "pip install 'cifar-ray[mlflow]'" in printed
    assert not run.exists()


def test_reports_end_with_a_table_and_a_page_of_the_bundles_that_exist(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(REPORTED) - {"cnn-122k", "cnn-2.9m", "cnn-3conv"}:
        monkeypatch.delitem(REPORTED, name)
    rng = np.random.default_rng(0)
    for file in ("data_batch_1.bin", "test_batch.bin"):
        records = rng.integers(0, 256, (20, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(20) % 10
        records.tofile(tmp_path / file)
    monkeypatch.setenv("CIFAR_RAY_DATA", str(tmp_path))
    runs = tmp_path / "runs"
    arguments = ["train", "cifar10", "--recipe", "reports", "--out", runs, "--max-minutes", 0]
    code, printed = cli(*arguments)
    assert code == 0
    assert "all that is trained" in printed
    assert "no page that compares them" in printed
    for name in ("cnn-122k", "cnn-2.9m"):
        make_bundle(runs / name / "bundle", network=name)
        write_json(runs / name / "metrics.json", {"accuracy": 0.5})
    code, printed = cli(*arguments)
    assert code == 0
    page = runs / "comparison" / "report.html"
    assert f"{page}." in printed
    assert "cnn-2.9m" in page.read_text()
    assert "**50.00%**" in (runs / "table.md").read_text()
    written_at = page.stat().st_mtime_ns
    cli(*arguments)
    assert page.stat().st_mtime_ns == written_at
