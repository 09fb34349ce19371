"""`cifar-ray predict` with a model of torchvision's."""

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision import models

from tests.drawing import draw
from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_evaluate import weights_that_know

CLASSES = ("goldfish", "jay", "green lizard", "lakeside")


def test_a_file_of_weights_labels_as_plain_torchvision_does(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_RAY_CACHE", str(tmp_path / "cache"))
    images, weights = tmp_path / "images", tmp_path / "weights.pth"
    for number, name in enumerate(CLASSES):
        (images / name).mkdir(parents=True)
        draw(random.Random(number), (500, 375), "RGB").save(images / name / "drawn.png")
    weights_that_know(images, weights)
    model = ("--model", "torchvision:squeezenet1_1", "--weights", weights)
    out = tmp_path / "out"
    code, told = cli("predict", images, "--out", out, *model, "--precision", "float32", "--local")
    assert code == 0, told
    assert "1000 classes (tench, goldfish" in told
    labelled = pq.read_table(out / "predictions", columns=["key", "label", "top_scores"])

    network = models.squeezenet1_1(weights=None).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    published = models.SqueezeNet1_1_Weights.DEFAULT
    for row in labelled.to_pylist():
        with torch.no_grad():
            image = published.transforms()(Image.open(images / row["key"]))
            scores, best = network(image[None])[0].softmax(0).topk(5)
        assert row["label"] == published.meta["categories"][best[0]]
        assert row["top_scores"] == pytest.approx(scores.tolist(), abs=1e-3)
    assert set(labelled["label"].to_pylist()) == set(CLASSES)
