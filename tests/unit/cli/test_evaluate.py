import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision import models
from typer.testing import CliRunner

from cifar_ray.cli.main import app
from cifar_ray.errors import InputError, Unfinished
from cifar_ray.models.bundle import save_bundle
from cifar_ray.runs import EvaluationRun
from tests.drawing import draw_classes
from tests.unit.cli.conftest import Cli
from tests.unit.models.bundles import make_network, make_spec

FULL = Path("/dev/full")
"""Where every write fails, as on a full disk."""
LABELS = ("blue", "green", "red")
CLASSES = {"jay": "blue", "green lizard": "green", "goldfish": "red"}
"""Three of ImageNet's classes, drawn in these colours."""


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
    assert metrics["computed_in"] == "float32"
    assert "all 12 images of colours" in result.output
    again = CliRunner().invoke(app, ["evaluate", *arguments, "--json"], catch_exceptions=False)
    assert json.loads(again.stdout)["accuracy"] == metrics["accuracy"]


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_and_no_fault_of_ours(
    cli: Cli, arguments: list[str], tmp_path: Path
) -> None:
    run = EvaluationRun(tmp_path / "out")
    run.folder.mkdir()
    run.report.symlink_to(FULL)
    code, told = cli("evaluate", *arguments)
    assert code == Unfinished.exit_code
    assert "No space left on the disk" in told
    assert "same command again" in told
    run.report.unlink()
    assert cli("evaluate", *arguments)[0] == 0


def test_models_are_judged_in_what_is_asked_for(arguments: list[str], tmp_path: Path) -> None:
    losses = []
    for asked in ([], ["--precision", "bfloat16"]):
        result = CliRunner().invoke(app, ["evaluate", *arguments, *asked, "--json"])
        losses.append(json.loads(result.stdout)["loss"])
    assert json.loads(result.stdout)["computed_in"] == "bfloat16"
    assert losses[0] != losses[1]
    assert "computed in bfloat16" in EvaluationRun(tmp_path / "out").report.read_text()


def test_int8_is_refused_of_a_bundle_without_it(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["evaluate", *arguments, "--precision", "int8"])
    assert isinstance(result.exception, InputError)
    assert "no int8 graph" in str(result.exception)


def test_a_bundle_without_data_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "cifar10", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "at least one bundle" in result.output


def weights_that_know(folder: Path, path: Path) -> None:
    """Save a SqueezeNet with random filters, and a last layer fitted to a folder's classes."""
    torch.manual_seed(0)
    network = models.squeezenet1_1(weights=None).eval()
    published = models.SqueezeNet1_1_Weights.DEFAULT
    names = published.meta["categories"]
    last = network.classifier[1]
    files = sorted(folder.glob("*/*"))
    images = torch.stack([published.transforms()(Image.open(file)) for file in files])
    rows = torch.tensor([names.index(file.parent.name) for file in files])
    with torch.no_grad():
        features = network.features(images).mean(dim=(2, 3))
        wanted = functional.one_hot(rows, len(names)).float()
        last.weight.copy_((10 * torch.linalg.pinv(features) @ wanted).T[..., None, None])
        last.bias.zero_()
    torch.save(network.state_dict(), path)


def test_torchvisions_models_are_judged_by_classes_of_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_RAY_CACHE", str(tmp_path / "cache"))
    photos = tmp_path / "photos"
    draw_classes(photos, each=4)
    for name, colour in CLASSES.items():
        (photos / colour).rename(photos / name)
    (tmp_path / "weights").mkdir()
    weights_that_know(photos, tmp_path / "weights" / "squeezenet1_1.pth")
    model, out = "torchvision:squeezenet1_1", tmp_path / "out"
    arguments = ["evaluate", model, str(photos), "--out", str(out), "--weights"]
    result = CliRunner().invoke(
        app, [*arguments, str(tmp_path / "weights")], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert model in result.output
    metrics = json.loads(EvaluationRun(out).metrics.read_text())
    assert (metrics["accuracy"], metrics["num_images"]) == (1.0, 12)
    assert len(metrics["per_class"]) == 1000
    assert metrics["per_class"]["goldfish"]["num_images"] == 4
    (photos / "goldfish").rename(photos / "goldfsh")
    with pytest.raises(InputError, match="goldfsh: Did you mean goldfish"):
        CliRunner().invoke(app, [*arguments, str(tmp_path / "weights")], catch_exceptions=False)


def test_weights_without_a_model_of_torchvisions_are_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["evaluate", *arguments, "--weights", "w.pth"])
    assert result.exit_code == 2
    assert "torchvision:NAME" in result.output
