"""Bundles judged by labelled folders, from the files to metrics.json."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifar_ray.config.execution import REFERENCE
from cifar_ray.errors import InputError
from cifar_ray.images.labels import CIFAR10
from cifar_ray.models.bundle import Bundle, save_bundle
from cifar_ray.runs import EvaluationRun, TrainingRun
from cifar_ray.training.evaluation.evaluate_bundles import (
    evaluate_bundles,
    execution_for,
    predict,
)
from cifar_ray.training.evaluation.held_out import load_held_out, match_labels
from tests.drawing import draw_classes
from tests.unit.models.bundles import make_network, make_spec

COLOURS = ("red", "green", "blue", "grey")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "colours"
    draw_classes(folder, each=8)
    return folder


def save(folder: Path, labels: tuple[str, ...], seed: int = 0, **changes: object) -> Bundle:
    network = make_network(num_classes=len(labels), seed=seed)
    return save_bundle(folder, network, make_spec(labels=labels, **changes))


def test_classes_are_matched_by_name_whatever_their_order(classes: Path, tmp_path: Path) -> None:
    bundle = save(tmp_path / "model", COLOURS)
    (found,) = evaluate_bundles([str(bundle.path)], str(classes), tmp_path / "out")
    held_out = found.held_out
    assert len(held_out) == 24
    for name, label in zip(held_out.names, held_out.labels, strict=True):
        assert COLOURS[label] == Path(name).parts[0]
    written = json.loads(EvaluationRun(tmp_path / "out").metrics.read_text())
    assert written["num_images"] == 24
    assert written["per_class"]["grey"]["num_images"] == 0
    assert written["accuracy"] == (found.predicted == held_out.labels).mean()
    assert written["evaluated_on"] == "all"
    assert EvaluationRun(tmp_path / "out").report.is_file()


def test_logits_are_those_of_the_reference_for_every_image(classes: Path, tmp_path: Path) -> None:
    import torch

    from cifar_ray.models.classifier import Classifier

    bundle = save(tmp_path / "model", COLOURS)
    held_out = load_held_out(str(classes), COLOURS)
    done: list[int] = []
    logits, timing = predict(
        bundle, held_out, execution_for(bundle, REFERENCE), lambda number, _: done.append(number)
    )
    preprocess = bundle.spec.preprocess
    classifier = Classifier(bundle.network(), preprocess.mean, preprocess.std).eval()
    with torch.inference_mode():
        expected = classifier(torch.from_numpy(held_out.pixels(range(24), preprocess)))
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    assert (timing.num_images, done[-1]) == (24, 24)


def test_curves_are_of_the_run_that_a_bundle_lies_in(classes: Path, tmp_path: Path) -> None:
    rows = [{"epoch": 0, "train_loss": 2.0, "validation_loss": 2.1, "validation_accuracy": 0.5}]
    run = TrainingRun(tmp_path / "run")
    save(run.bundle, COLOURS)
    run.history.write_text(json.dumps(rows))
    alone = save(tmp_path / "model", COLOURS, seed=1)
    places = [str(run.folder), str(alone.path)]
    found = evaluate_bundles(places, str(classes), tmp_path / "out")
    assert [evaluation.history for evaluation in found] == [rows, []]


def test_bundles_of_the_same_labels_in_another_order_are_compared(
    classes: Path, tmp_path: Path
) -> None:
    first = save(tmp_path / "first", COLOURS)
    second = save(tmp_path / "run" / "bundle", COLOURS[::-1], seed=1)
    found = evaluate_bundles(
        [str(first.path), str(tmp_path / "run")], str(classes), tmp_path / "out"
    )
    assert [item.name for item in found] == ["first", "run"]
    held_out = load_held_out(str(classes), COLOURS[::-1])
    alone, _ = predict(second, held_out, execution_for(second, REFERENCE), lambda *_: None)
    np.testing.assert_allclose(found[1].logits, alone[:, ::-1], atol=1e-5)
    written = json.loads(EvaluationRun(tmp_path / "out").metrics.read_text())
    assert [model["model"] for model in written["models"]] == [first.id, second.id]


def test_bundles_of_other_labels_are_refused_with_what_differs(
    classes: Path, tmp_path: Path
) -> None:
    first = save(tmp_path / "first", COLOURS)
    second = save(tmp_path / "second", (*COLOURS[:-1], "pink", "teal"))
    with pytest.raises(
        InputError, match=r"only .*first knows grey; only .*second knows pink, teal"
    ):
        evaluate_bundles([str(first.path), str(second.path)], str(classes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_bundle_twice_is_refused(classes: Path, tmp_path: Path) -> None:
    first = save(tmp_path / "first", COLOURS)
    for again in (first.path, first.copy_to(tmp_path / "copy").path):
        with pytest.raises(InputError, match=r"same bundle|given twice"):
            evaluate_bundles([str(first.path), str(again)], str(classes), tmp_path / "out")


def test_an_unknown_class_gets_the_nearest_names(classes: Path, tmp_path: Path) -> None:
    bundle = save(tmp_path / "model", ("rod", "green", "blue"))
    with pytest.raises(InputError, match=r"red: Did you mean rod"):
        evaluate_bundles([str(bundle.path)], str(classes), tmp_path / "out")


def test_labels_that_no_image_has_may_be_unknown() -> None:
    labels = match_labels(np.array([0, 2, 0]), ("a", "b", "c"), ("c", "x", "a"))
    assert labels.tolist() == [2, 0, 2]


def test_a_parquet_file_has_numbers_into_the_bundles_labels(classes: Path, tmp_path: Path) -> None:
    data = (classes / "red" / "00.png").read_bytes()
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"image": [data, data], "label": [1, 0]}), path)
    held_out = load_held_out(str(path), COLOURS)
    assert held_out.labels.tolist() == [1, 0]
    assert held_out.names[1] == "row 1"
    assert held_out.description == "all 2 images of images.parquet"


def test_cifar10_stands_for_its_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for name, number in (("data_batch_1", 3), ("test_batch", 5)):
        records = rng.integers(0, 256, (number, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(number)
        records.tofile(tmp_path / f"{name}.bin")
    monkeypatch.setenv("CIFAR_RAY_DATA", str(tmp_path))
    held_out = load_held_out("cifar10", CIFAR10[::-1])
    assert held_out.description == "5 test images of cifar10"
    assert held_out.labels.tolist() == [9, 8, 7, 6, 5]
    assert held_out.pixels([4, 0], make_spec().preprocess).shape == (2, 32, 32, 3)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / name / "fine.png")
    (tmp_path / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    held_out = load_held_out(str(tmp_path), COLOURS)
    with pytest.raises(InputError, match=r"broken\.jpg of DATA cannot be decoded"):
        held_out.pixels(range(3), make_spec().preprocess)


def test_a_folder_of_other_things_is_not_written_to(classes: Path, tmp_path: Path) -> None:
    bundle = save(tmp_path / "model", COLOURS)
    with pytest.raises(InputError, match=r"holds other things \(model\)"):
        evaluate_bundles([str(bundle.path)], str(classes), tmp_path)


def test_data_that_the_model_may_have_seen_is_said_to_be(classes: Path, tmp_path: Path) -> None:
    bundle = save(tmp_path / "model", COLOURS, trained_on={"dataset": "colours"})
    evaluate_bundles([str(bundle.path)], str(classes), tmp_path / "out")
    page = EvaluationRun(tmp_path / "out").report.read_text()
    assert "was trained on data called colours, too" in page


def test_data_that_is_not_there_is_an_error_of_the_user() -> None:
    with pytest.raises(InputError, match="is not there"):
        load_held_out("nowhere", COLOURS)
