"""A run that was stopped, however it was, ends with the weights of an undisturbed one."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingSpec, override
from cifar_ray.errors import InputError, Unfinished
from cifar_ray.models import registry
from cifar_ray.runs import TrainingRun
from cifar_ray.training.loop import EpochRow, Ranks
from cifar_ray.training.pipeline import Watcher, train
from cifar_ray.training.resume import open_run
from tests.drawing import draw_classes

FULL = Path("/dev/full")
"""Where every write fails, as on a full disk."""
COMMON = ("validation_fraction=0.2", "test_fraction=0.2", "batch_size=9", "augment.flip=random")
WAYS = {
    "plateau and early stopping": (
        "epochs=30",
        "schedule.name=plateau",
        "schedule.plateau_patience=1",
        "early_stopping.patience=3",
        # Too fast to improve for long, so that both do something.
        "optimizer.learning_rate=0.01",
    ),
    "a trunk that is released": (
        "epochs=5",
        "transfer.pretrained=true",
        "transfer.frozen_epochs=2",
        "transfer.unfrozen_factor=0.5",
        "weight_average_decay=0.5",
        "schedule.name=cosine",
    ),
    "stages, mixing and class weights": (
        "epochs=4",
        "schedule.name=staged",
        "schedule.stages=[[2,0.002],[1,0.001]]",
        "augment.mixup_alpha=0.2",
        "augment.cutmix_alpha=1",
        "class_weights=balanced",
        "optimizer.name=sgd",
    ),
}


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "classes"
    draw_classes(root, each=20)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the same network for another number of classes."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "other.safetensors"
    save_file(registry.build("cnn-122k", 7).state_dict(), path)
    return path


def spec_of(classes: Path, run: Path, weights: Path | None, *settings: str) -> TrainingSpec:
    config = override(get_recipe("cnn-122k"), [*COMMON, *settings])
    return TrainingSpec(
        config=config,
        data=str(classes),
        run=str(run),
        weights=str(weights) if weights and config.transfer.pretrained else None,
        code_version="0",
    )


def start(spec: TrainingSpec, on_epoch: Callable[[EpochRow], None] = lambda row: None) -> None:
    open_run(spec)
    train(spec, Ranks(), Watcher(on_epoch=on_epoch))


def assert_equal_runs(ours: TrainingRun, undisturbed: TrainingRun) -> None:
    found, expected = (load_file(r.bundle / "model.safetensors") for r in (ours, undisturbed))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    newest = [max(run.checkpoints.iterdir()) / "state.safetensors" for run in (ours, undisturbed)]
    found, expected = (load_file(path) for path in newest)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    rows = [json.loads(run.history.read_text()) for run in (ours, undisturbed)]
    for row, other in zip(*rows, strict=True):
        assert set(row) == set(other)
        same = set(row) - {"seconds", "images_per_second"}
        assert [row[name] for name in same] == [other[name] for name in same]


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    classes: Path, weights: Path, tmp_path: Path, way: str
) -> None:
    whole = spec_of(classes, tmp_path / "whole", weights, *WAYS[way])
    start(whole)
    stopped = spec_of(classes, tmp_path / "stopped", weights, *WAYS[way])

    def interrupt(row: EpochRow) -> None:
        raise KeyboardInterrupt

    while not TrainingRun(Path(stopped.run)).metrics.exists():
        try:
            start(stopped, on_epoch=interrupt)
        except KeyboardInterrupt:
            continue
    assert_equal_runs(TrainingRun(Path(stopped.run)), TrainingRun(Path(whole.run)))
    rows = json.loads(TrainingRun(Path(whole.run)).history.read_text())
    if "early_stopping.patience=3" in WAYS[way]:
        assert 3 < len(rows) < 30
        assert rows[-1]["learning_rate"] < rows[0]["learning_rate"]


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("what", ["history", "metrics"])
def test_a_full_disk_leaves_a_run_that_goes_on_to_the_same_weights(
    classes: Path, tmp_path: Path, what: str
) -> None:
    whole = spec_of(classes, tmp_path / "whole", None, "epochs=2")
    start(whole)
    spec = spec_of(classes, tmp_path / "stopped", None, "epochs=2")
    run = TrainingRun(Path(spec.run))
    open_run(spec)
    path: Path = getattr(run, what)
    path.with_name(f".{path.name}.{os.getpid()}").symlink_to(FULL)
    with pytest.raises(Unfinished, match=r"No space left.*same command again"):
        start(spec)
    assert not path.exists()
    start(spec)
    assert_equal_runs(run, TrainingRun(Path(whole.run)))


def test_a_damaged_checkpoint_is_told_and_the_one_before_serves(
    classes: Path, tmp_path: Path
) -> None:
    spec = spec_of(classes, tmp_path / "run", None, "epochs=3")
    start(spec)
    run = TrainingRun(Path(spec.run))
    run.metrics.unlink()
    (run.checkpoints / "epoch-0003" / "state.json").write_text("{")
    with pytest.raises(InputError, match=r"checkpoints/epoch-0003 is damaged.*Delete it"):
        start(spec)
    shutil.rmtree(run.checkpoints / "epoch-0003")
    start(spec)
    assert run.metrics.exists()


def _train_in_a_process(spec: str) -> None:
    start(TrainingSpec.model_validate_json(spec))


@pytest.mark.timeout(900)  # a start of PyTorch, perhaps on a busy machine
def test_a_killed_process_leaves_a_run_that_goes_on_to_the_same_weights(
    classes: Path, tmp_path: Path
) -> None:
    settings = ("epochs=60", "optimizer.learning_rate=1e-4")
    spec = spec_of(classes, tmp_path / "killed", None, *settings)
    run = TrainingRun(Path(spec.run))
    process = multiprocessing.get_context("spawn").Process(
        target=_train_in_a_process, args=(spec.model_dump_json(),)
    )
    process.start()
    while process.is_alive():
        process.join(0.02)
        if run.history.exists() and len(json.loads(run.history.read_text())) >= 3:
            process.kill()
            process.join()
    assert process.exitcode == -9
    assert not run.metrics.exists()
    # What a kill in the middle of a save leaves.
    (run.checkpoints / ".epoch-0007.1").mkdir()
    epochs: list[int] = []
    start(spec, on_epoch=lambda row: epochs.append(row.epoch))
    assert 3 <= epochs[0] < 59
    whole = spec_of(classes, tmp_path / "whole", None, *settings)
    start(whole)
    assert_equal_runs(run, TrainingRun(Path(whole.run)))
    kept = sorted(path.name for path in run.checkpoints.iterdir())
    assert kept[-1] == "epoch-0060"
    assert len(kept) <= 2
