"""`train` and `recipes` as a user gives them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cifar_ray.config.recipes import RECIPES
from tests.drawing import draw_classes
from tests.unit.cli.conftest import Cli


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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["cifar10", "--out", "r"], "one of --recipe NAME and --from RUN"),
        (["cifar10", "--out", "r", "--recipe", "cnn-122k", "--from", "x"], "one of --recipe"),
        (["--out", "r", "--recipe", "cnn-122k"], "DATA is missing"),
        (["--out", "r", "--from", "nowhere"], "nowhere is no training run"),
        (["cifar10", "--out", "r", "--recipe", "reports", "--set", "epochs=1"], "as they are"),
        (["photos", "--out", "r", "--recipe", "reports"], "give `cifar10` for DATA"),
    ],
)
def test_what_does_not_go_together_is_told(cli: Cli, arguments: list[str], told: str) -> None:
    code, printed = cli("train", *arguments)
    assert code == 2
    assert told in " ".join(printed.split())


def test_recipes_are_listed_with_parameters_schedule_and_what_they_reached(cli: Cli) -> None:
    code, printed = cli("recipes", "--json")
    assert code == 0
    listed = {row["name"]: row for row in json.loads(printed)}
    assert list(listed) == list(RECIPES)
    assert listed["cnn-2.9m"]["parameters"] == 2_915_114
    assert listed["resnet-blocks"]["schedule"] == "staged"
    assert listed["vgg16-frozen"]["pretrained"]
    code, printed = cli("recipes")
    assert code == 0
    assert "cnn-3conv" in printed
