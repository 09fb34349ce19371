import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cifar_ray.cli.main import app
from cifar_ray.models.bundle import save_bundle
from cifar_ray.runs import EvaluationRun
from tests.drawing import draw_classes
from tests.unit.models.bundles import make_network, make_spec

LABELS = ("blue", "green", "red")


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    draw_classes(tmp_path / "colours", each=4)
    save_bundle(tmp_path / "model", make_network(num_classes=3), make_spec(labels=LABELS))
    return [str(tmp_path / "model"), str(tmp_path / "colours"), "--out", str(tmp_path / "out")]


def test_evaluate_prints_what_it_writes(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    metrics = json.loads(EvaluationRun(tmp_path / "out").metrics.read_text())
    assert f"{metrics['accuracy']:.2%}" in result.output
    assert "all 12 images of colours" in result.output
    again = CliRunner().invoke(app, ["evaluate", *arguments, "--json"], catch_exceptions=False)
    assert json.loads(again.stdout)["accuracy"] == metrics["accuracy"]


def test_a_bundle_without_data_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "cifar10", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "at least one bundle" in result.output
