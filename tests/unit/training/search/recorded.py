"""Searches as they are on disk once they have run, without running them."""

import json
from pathlib import Path

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.search import SearchSpec
from cifar_ray.config.spaces import parse_space
from cifar_ray.config.training import override
from cifar_ray.training.search.record import Records

SPACE = """
learning_rate = {log_uniform = [1e-4, 1e-1]}
batch_size = {choice = [32, 64, 128]}
augment.flip = {choice = ["none", "random"]}
"""


def spec_of(run: Path, **changes: object) -> SearchSpec:
    config = override(get_recipe("cnn-122k"), ["epochs=4"])
    values = {
        "config": config,
        "space": parse_space("drawn.toml", SPACE, config),
        "search": "random",
        "scheduler": "asha",
        "num_trials": 16,
        "seed": 0,
        "data": "cifar10",
        "run": str(run),
        "code_version": "0",
    }
    return SearchSpec.model_validate({**values, **changes})


def row(epoch: int, accuracy: float) -> dict[str, float]:
    return {
        "epoch": epoch,
        "train_loss": 2.0 - accuracy,
        "validation_loss": 2.1 - accuracy,
        "validation_accuracy": accuracy,
        "learning_rate": 0.001,
        "seconds": 10.0,
        "images_per_second": 100.0,
    }


def write_rows(records: Records, number: int, accuracies: list[float]) -> None:
    """Do what a trial's worker does."""
    folder = records.run.trial(number).folder
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row(epoch, accuracy) for epoch, accuracy in enumerate(accuracies)]
    (folder / "history.json").write_text(json.dumps(rows))


def ended(records: Records, number: int, rate: float, accuracies: list[float]) -> None:
    flip = "none" if number % 2 else "random"
    size = (32, 64, 128)[number % 3]
    records.begin(
        number, {"optimizer.learning_rate": rate, "batch_size": size, "augment.flip": flip}
    )
    write_rows(records, number, accuracies)
    records.end(number)
