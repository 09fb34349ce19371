"""Training runs and images to train on that lie in a bucket."""

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
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
from cifar_ray.training.data.sources import load as load_data
from cifar_ray.training.data.split import digests
from cifar_ray.training.data.survey import load_stream
from cifar_ray.training.evaluation.held_out import load_held_out
from cifar_ray.training.loop import EpochRow, Ranks
from cifar_ray.training.pipeline import Watcher, train
from cifar_ray.training.place import open_place
from cifar_ray.training.resume import open_run, read_spec
from cifar_ray.training.search.trial import images
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


def spec_of(classes: Path | str, place: str, *settings: str) -> TrainingSpec:
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


@pytest.fixture
def in_bucket(classes: Path, prefix: str, place: str, client: Any) -> str:
    """The classes' files as objects, one of them deeper, among others that are no images."""
    for path in [*classes.rglob("*.png")]:
        name = path.relative_to(classes).as_posix()
        key = f"{prefix}classes/{name.replace('/07', '/deeper/07')}"
        client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
    for name in ("README", "_marks/x", "red/.hidden", "red/_SUCCESS"):
        client.put_object(Bucket=BUCKET, Key=f"{prefix}classes/{name}", Body=b"x")
    return f"{place}/classes"


def test_classes_in_a_bucket_are_the_classes_of_a_folder(classes: Path, in_bucket: str) -> None:
    ours, expected = load_data(in_bucket, 32), load_data(str(classes), 32)
    assert ours.name == "classes"
    assert ours.train.label_names == expected.train.label_names
    assert torch.equal(ours.train.labels, expected.train.labels)
    assert sorted(digests(ours.train)) == sorted(digests(expected.train))
    for label in range(3):
        of_class = ours.train.select(torch.nonzero(ours.train.labels == label).flatten())
        there = expected.train.select(torch.nonzero(expected.train.labels == label).flatten())
        assert set(digests(of_class)) == set(digests(there))


def test_a_search_splits_the_images_of_a_bucket(in_bucket: str) -> None:
    config = override(get_recipe("cnn-122k"), list(SETTINGS))
    training, validation = images(in_bucket, config, 32)
    assert (len(training), len(validation)) == (36, 12)


def test_parquet_in_a_bucket_keeps_its_own_test_images(
    classes: Path, prefix: str, place: str, client: Any
) -> None:
    images = [path.read_bytes() for path in sorted(classes.glob("*/*.png"))]
    labels = [path.parent.name for path in sorted(classes.glob("*/*.png"))]
    for name, rows in (("train-0", slice(0, 60, 2)), ("test-0", slice(1, 60, 2))):
        sink = io.BytesIO()
        pq.write_table(pa.table({"image": images[rows], "label": labels[rows]}), sink)
        key = f"{prefix}table/{name}.parquet"
        client.put_object(Bucket=BUCKET, Key=key, Body=sink.getvalue())
    data = load_data(f"{place}/table", 32)
    assert (len(data.train), data.test and len(data.test)) == (30, 30)
    held_out = load_held_out(f"{place}/table", ("red", "green", "blue"))
    assert held_out.description == "30 test images of table"
    one = load_data(f"{place}/table/train-0.parquet", 32)
    assert torch.equal(one.train.images, data.train.images)
    with pytest.raises(InputError, match="is not there"):
        load_data(f"{place}/nowhere", 32)


@pytest.fixture
def tars_in_bucket(classes: Path, prefix: str, place: str, client: Any) -> str:
    """The same images in two shards, each with its label behind it."""
    paths = sorted(classes.glob("*/*.png"))
    for number in range(2):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w") as tar:
            for path in paths[number * 30 : (number + 1) * 30]:
                stem = f"{path.parent.name}/{path.stem}"
                tar.add(path, f"{stem}.png")
                header = tarfile.TarInfo(f"{stem}.cls")
                header.size = len(path.parent.name)
                tar.addfile(header, io.BytesIO(path.parent.name.encode()))
        key = f"{prefix}shards/train-{number}.tar"
        client.put_object(Bucket=BUCKET, Key=key, Body=sink.getvalue())
    return f"{place}/shards"


def test_tar_shards_in_a_bucket_are_the_classes_of_a_folder(
    classes: Path, tars_in_bucket: str
) -> None:
    ours, expected = load_data(tars_in_bucket, 32), load_data(str(classes), 32)
    assert ours.train.label_names == expected.train.label_names
    assert torch.equal(ours.train.labels, expected.train.labels)
    assert torch.equal(ours.train.images, expected.train.images)
    held_out = load_held_out(f"{tars_in_bucket}/train-1.tar", ("red", "green", "blue"))
    assert held_out.description == "all 30 images of train-1.tar"
    assert held_out.labels.tolist() == [1] * 10 + [0] * 20


def test_what_is_streamed_from_a_bucket_is_what_is_loaded_and_its_survey_is_kept_there(
    in_bucket: str, tars_in_bucket: str, place: str
) -> None:
    for number, data in enumerate((in_bucket, tars_in_bucket)):
        spec = spec_of(data, f"{place}/run-{number}", "stream.enabled=true", "epochs=1")
        metrics = start(spec)
        assert metrics["num_images"] == 12
        assert open_store(spec.run).exists("survey.safetensors")
        expected = load_data(data, 32).train.images
        for looked_at in (False, True):
            with open_place(spec.run) as opened:
                # What a killed start leaves when it had no time to look.
                if not looked_at:
                    open_store(spec.run).delete("survey.safetensors")
                streamed = load_stream(spec, 32, opened, Ranks()).train
                assert torch.equal(streamed.take(torch.arange(60)), expected)


def test_a_bundle_in_a_bucket_is_trained_evaluated_and_found_by_the_run(
    in_bucket: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    trained = ("train", in_bucket, "--recipe", "cnn-122k", "--out", f"{place}/run/", *settings)
    evaluated = ("evaluate", f"{place}/run", in_bucket, "--out", tmp_path / "out")
    for command in (trained, evaluated):
        monkeypatch.setattr(sys, "argv", ["cifar-ray", *map(str, command)])
        with pytest.raises(SystemExit) as exit_:
            run()
        assert exit_.value.code in (0, None)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["num_images"] == 60
    plots = {path.name for path in (tmp_path / "out" / "plots").iterdir()}
    assert {"loss.png", "accuracy.png"} <= plots  # by epoch, of the run's history
    folder = fetch_bundle(f"{place}/run/bundle")
    assert folder == fetch_bundle(f"{place}/run")
    assert Bundle.load(folder).spec.labels == ("blue", "green", "red")
    with pytest.raises(InputError, match="no bundle at"):
        fetch_bundle(f"{place}/nowhere")
