import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cifar_ray.cli.main import app
from cifar_ray.images.labels import CIFAR10
from cifar_ray.models import registry
from cifar_ray.models.bundle import Bundle
from tests.unit.models.bundles import make_network


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(make_network().state_dict(), path)
    return path


def test_models_lists_every_network_as_json_without_torch() -> None:
    code = (
        "import sys; from cifar_ray.cli.main import app;"
        "app(['models', '--json'], standalone_mode=False);"
        "assert not {'torch', 'torchvision', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == registry.names()
    assert {"name": "cnn-122k", "parameters": 122_570, "input_size": 32} in rows
    assert all(set(row) == {"name", "parameters", "input_size"} for row in rows)


def test_models_prints_a_table() -> None:
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 0
    assert "122,570" in result.output


def test_import_makes_a_bundle_with_the_preprocessing_that_was_asked_for(
    weights: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(CIFAR10))
    out = tmp_path / "bundle"
    arguments = ["import", str(weights), "--network", "cnn-122k", "--labels", str(labels)]
    arguments += ["--out", str(out), "--squash", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    bundle = Bundle.load(out)
    assert bundle.id in result.output
    preprocess = bundle.spec.preprocess
    assert (preprocess.squash, preprocess.mean[0], preprocess.std[0]) == (32, 0.5, 0.2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--mean", "1,2"], "three numbers"),
        (["--squash", "--resize", "40"], "not both"),
        (["--resize", "20"], "larger"),
        (["--interpolation", "magic"], "interpolation|Input should be"),
        (["--network", "cnn-122m"], "cnn-122k"),
        (["--labels", "absent.txt"], "absent.txt"),
    ],
)
def test_import_refuses_what_makes_no_sense(
    arguments: list[str], told: str, weights: Path, tmp_path: Path
) -> None:
    base = ["import", str(weights), "--network", "cnn-122k", "--labels", "cifar10"]
    base += ["--out", str(tmp_path / "bundle")]
    result = CliRunner().invoke(app, [*base, *arguments])
    assert result.exception is not None
    assert getattr(result.exception, "exit_code", None) == 2
    assert re.search(told, str(result.exception))
    assert not (tmp_path / "bundle").exists()
