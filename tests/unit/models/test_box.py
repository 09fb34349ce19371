"""The model in the box: small, told where it comes from, and as good as it is said to be."""

import json
from importlib.resources import files
from pathlib import Path

import pyarrow.parquet as pq

from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.config.recipes import get_recipe
from cifar_ray.images.labels import CIFAR10
from tests.unit.prediction.test_labelling import rows, run

BOX = Path(str(files("cifar_ray.models") / "box"))
NUM_IMAGES = 1000
LEAST_ACCURACY = 0.88
"""Of a thousand images; of all 5,000 it labels 91.2 % right."""


def test_it_weighs_little_and_says_how_it_was_trained() -> None:
    assert sum(path.stat().st_size for path in BOX.rglob("*")) <= 5_000_000
    record = json.loads((BOX / "bundle.json").read_text())
    trained_on, metrics = record["trained_on"], record["metrics"]
    assert (trained_on["dataset"], trained_on["num_images"]) == ("cifar10", 48_500)
    assert f"train cifar10 --recipe {trained_on['recipe']}" in trained_on["command"]
    assert get_recipe(trained_on["recipe"]).network == record["network"]
    assert trained_on["seconds"] > 0
    assert (metrics["evaluated_on"], metrics["num_images"]) == ("test", 5000)
    assert tuple(record["labels"]) == CIFAR10
    assert record["temperature"] > 0


def test_it_labels_test_images_as_well_as_is_said(cifar_data: Path, tmp_path: Path) -> None:
    table = pq.read_table(cifar_data / "cifar10" / "test.parquet", columns=["image", "label"])
    (tmp_path / "images").mkdir()
    truth = {}
    for number, row in enumerate(table.to_pylist()[:: len(table) // NUM_IMAGES]):
        truth[f"{number:04}.jpg"] = CIFAR10[row["label"]]
        (tmp_path / "images" / f"{number:04}.jpg").write_bytes(row["image"])
    assert run(tmp_path / "images", tmp_path / "out", config=LabellingConfig()).ok == NUM_IMAGES
    labelled = rows(tmp_path / "out")
    right = sum(labelled[key]["label"] == label for key, label in truth.items())
    assert right / NUM_IMAGES > LEAST_ACCURACY
