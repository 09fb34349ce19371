"""A whole training run in this process, on drawn images of three colours."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingSpec, override
from cifar_ray.errors import CifarRayError, InputError
from cifar_ray.models.bundle import Bundle
from cifar_ray.runs import TrainingRun
from cifar_ray.training.loop import EpochRow, Ranks
from cifar_ray.training.pipeline import Watcher, train
from cifar_ray.training.resume import open_run
from tests.drawing import draw_classes

SMALL = (
    "epochs=3",
    "validation_fraction=0.2",
    "test_fraction=0.2",
    "augment.translate_px=2",
    "augment.flip=random",
    "weight_average_decay=0.5",
)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety drawn images in three classes, each a colour with noise; one has another size."""
    root = tmp_path_factory.mktemp("data") / "classes"
    draw_classes(root, each=30)
    return root


def spec_of(classes: Path, run: Path, *settings: str) -> TrainingSpec:
    config = override(get_recipe("cnn-122k"), [*SMALL, *settings])
    return TrainingSpec(config=config, data=str(classes), run=str(run), code_version="0")


def start(spec: TrainingSpec, watcher: Watcher | None = None) -> dict:
    assert open_run(spec) is None
    metrics = train(spec, Ranks(), watcher or Watcher())
    assert metrics is not None
    return metrics


@pytest.fixture(scope="module")
def whole(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    start(spec_of(classes, folder))
    return TrainingRun(folder)


def test_a_run_leaves_a_bundle_that_says_what_it_was_trained_on(whole: TrainingRun) -> None:
    bundle = Bundle.load(whole.bundle)
    assert bundle.spec.labels == ("blue", "green", "red")
    assert bundle.spec.trained_on.num_images == 54
    assert bundle.spec.trained_on.image_width == (32, 40)
    assert bundle.spec.trained_on.image_height == (32, 36)
    assert bundle.spec.temperature is not None
    assert bundle.spec.metrics["accuracy"] == 1.0
    assert whole.metrics.exists()
    assert list(whole.tensorboard.glob("events*"))
    bundle.check()


def test_a_run_ends_with_its_report_and_plots(whole: TrainingRun) -> None:
    page = whole.report.read_text()
    assert "18 of 18 images right" in page
    assert "were chosen on 18 validation images" in page
    assert "The images of this page were used for this page alone." in page
    names = {path.stem for path in whole.plots.iterdir()}
    assert {"confusion_matrix", "roc", "reliability", "loss", "accuracy", "predictions"} == names


def test_the_page_tells_of_equal_images_where_there_are_any(
    whole: TrainingRun, tmp_path: Path
) -> None:
    assert "pixel for pixel" not in whole.report.read_text()
    draw_classes(tmp_path / "classes", each=15)
    content = (tmp_path / "classes" / "red" / "01.png").read_bytes()
    for number in range(2, 14):
        (tmp_path / "classes" / "red" / f"{number:02}.png").write_bytes(content)
    metrics = start(spec_of(tmp_path / "classes", tmp_path / "run", "epochs=1"))
    found = metrics["duplicates"]
    assert found["copies"] == 12
    assert found["left_out"] > 0
    page = " ".join((tmp_path / "run" / "report.html").read_text().split())
    assert "12 images of DATA equal an earlier one, pixel for pixel" in page
    assert f"{found['left_out']} of them were left out" in page


def test_an_interrupted_run_ends_with_the_weights_of_an_undisturbed_one(
    classes: Path, whole: TrainingRun, tmp_path: Path
) -> None:
    spec = spec_of(classes, tmp_path / "run")

    def interrupt(row: EpochRow) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(spec, Watcher(on_epoch=interrupt))
    epochs: list[int] = []
    start(spec, Watcher(on_epoch=lambda row: epochs.append(row.epoch)))
    assert epochs == [1, 2]
    ours, undisturbed = (
        load_file(folder / "model.safetensors")
        for folder in (TrainingRun(tmp_path / "run").bundle, whole.bundle)
    )
    assert all(torch.equal(ours[name], undisturbed[name]) for name in undisturbed)


def test_the_newest_and_the_best_checkpoint_are_kept(whole: TrainingRun) -> None:
    kept = sorted(path.name for path in whole.checkpoints.iterdir())
    assert kept[-1] == "epoch-0003"
    assert len(kept) <= 2


def test_a_finished_run_gives_its_metrics_and_another_config_is_refused(
    classes: Path, whole: TrainingRun
) -> None:
    metrics = open_run(spec_of(classes, whole.folder))
    assert metrics is not None
    assert metrics["accuracy"] == 1.0
    with pytest.raises(InputError, match="batch_size: there 32, now 16"):
        open_run(spec_of(classes, whole.folder, "batch_size=16"))
    # Of a later version, in which the recipe tells what it reached.
    assert open_run(spec_of(classes, whole.folder, "expected_accuracy=0.7", "minutes=4"))


def test_a_folder_of_other_things_is_not_taken_for_a_run(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not empty and holds no run"):
        open_run(spec_of(classes, tmp_path / "mine"))


def test_training_that_diverges_says_so(classes: Path, tmp_path: Path) -> None:
    spec = spec_of(classes, tmp_path / "run", "optimizer.name=sgd", "optimizer.learning_rate=1e9")
    with pytest.raises(CifarRayError, match="diverged"):
        start(spec)


def test_images_that_cannot_be_decoded_are_named(classes: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    for name in ("blue", "red"):
        (broken / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(broken / name / "fine.png")
    (broken / "red" / "bad.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"bad\.png: not_an_image"):
        train(spec_of(broken, tmp_path / "run"), Ranks(), Watcher())


@pytest.mark.parametrize("names", [[], ["only"]])
def test_a_folder_without_classes_is_refused(tmp_path: Path, names: list[str]) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for name in names:
        (root / name).mkdir()
    with pytest.raises(InputError, match="a sub-folder a class"):
        train(spec_of(root, tmp_path / "run"), Ranks(), Watcher())
