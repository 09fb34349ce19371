"""Training runs that lie in a bucket."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from cifar_ray.cli.main import run
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingSpec, override
from cifar_ray.errors import InputError
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.fetching import fetch_bundle
from cifar_ray.storage import open_store
from cifar_ray.training.loop import EpochRow, Ranks
from cifar_ray.training.pipeline import Watcher, train
from cifar_ray.training.resume import open_run, read_spec
from tests.drawing import draw_classes
from tests.store.conftest import BUCKET

SETTINGS = ("epochs=3", "validation_fraction=0.2", "test_fraction=0.2", "batch_size=9")
WEIGHTS = "bundle/model.safetensors"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_RAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "classes"
    draw_classes(root, each=20)
    return root


def spec_of(classes: Path, place: str, *settings: str) -> TrainingSpec:
    config = override(get_recipe("cnn-122k"), [*SETTINGS, *settings])
    return TrainingSpec(config=config, data=str(classes), run=place, code_version="0")


def start(spec: TrainingSpec, watcher: Watcher | None = None) -> dict[str, Any]:
    assert open_run(spec) is None
    metrics = train(spec, Ranks(), watcher or Watcher())
    assert metrics is not None
    return metrics


def weights(place: str) -> dict[str, torch.Tensor]:
    return load(open_store(place).read(WEIGHTS))


class Stop(Exception):
    """Ends a training where a test wants it to end."""


def stop_after(spec: TrainingSpec, epochs_done: int) -> None:
    def stop(row: EpochRow) -> None:
        if row.epoch + 1 == epochs_done:
            raise Stop

    with pytest.raises(Stop):
        start(spec, Watcher(on_epoch=stop))


def test_a_stopped_run_in_a_bucket_ends_with_the_weights_of_one_in_a_folder(
    classes: Path, place: str, tmp_path: Path
) -> None:
    whole = str(tmp_path / "whole")
    start(spec_of(classes, whole))
    spec = spec_of(classes, f"{place}/run")
    stop_after(spec, 2)
    store = open_store(spec.run)
    # What kills within an upload and within a deletion leave.
    store.write("checkpoints/epoch-0003/state.safetensors", b"half")
    store.write("checkpoints/epoch-0000/state.safetensors", b"an orphan")
    epochs: list[int] = []
    metrics = start(spec, Watcher(on_epoch=lambda row: epochs.append(row.epoch)))
    assert epochs == [2]
    ours, expected = weights(spec.run), weights(whole)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert open_run(spec) == metrics
    assert set(store.names("")) == {
        *("bundle", "checkpoints", "config.json", "history.json", "metrics.json", "plots"),
        *("report.html", "tensorboard"),
    }
    assert len(json.loads(store.read("history.json"))) == 3
    kept = store.names("checkpoints")
    assert kept[-1] == "epoch-0003"
    assert len(kept) <= 2


def test_another_run_or_other_things_in_the_place_are_refused(
    classes: Path, place: str, prefix: str, client: Any
) -> None:
    assert open_run(spec_of(classes, f"{place}/run")) is None
    assert read_spec(f"{place}/run") == spec_of(classes, f"{place}/run")
    with pytest.raises(InputError, match="batch_size: there 9, now 8"):
        open_run(spec_of(classes, f"{place}/run", "batch_size=8"))
    client.put_object(Bucket=BUCKET, Key=f"{prefix}other/thesis.tex", Body=b"x")
    with pytest.raises(InputError, match="not empty and holds no run"):
        open_run(spec_of(classes, f"{place}/other"))
    with pytest.raises(InputError, match="no training run"):
        read_spec(f"{place}/nowhere")
    with pytest.raises(InputError, match="no-such-bucket"):
        open_run(spec_of(classes, "s3://no-such-bucket-of-ours/run"))


def test_a_bundle_in_a_bucket_is_trained_evaluated_and_found_by_the_run(
    classes: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    trained = ("train", classes, "--recipe", "cnn-122k", "--out", f"{place}/run/", *settings)
    evaluated = ("evaluate", f"{place}/run", classes, "--out", tmp_path / "out")
    for command in (trained, evaluated):
        monkeypatch.setattr(sys, "argv", ["cifar-ray", *map(str, command)])
        with pytest.raises(SystemExit) as exit_:
            run()
        assert exit_.value.code in (0, None)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["num_images"] == 60
    folder = fetch_bundle(f"{place}/run/bundle")
    assert folder == fetch_bundle(f"{place}/run")
    assert Bundle.load(folder).spec.labels == ("blue", "green", "red")
    with pytest.raises(InputError, match="no bundle at"):
        fetch_bundle(f"{place}/nowhere")
