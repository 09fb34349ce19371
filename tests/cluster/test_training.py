"""Training with Ray Train: the loss curve of one process."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingSpec, override
from cifar_ray.errors import InputError
from cifar_ray.models.bundle import Bundle
from cifar_ray.on_ray.training import cores_each
from cifar_ray.on_ray.training import train as train_on_ray
from cifar_ray.runs import TrainingRun
from cifar_ray.training.loop import EpochRow, Ranks
from cifar_ray.training.pipeline import Watcher
from cifar_ray.training.pipeline import train as train_here
from cifar_ray.training.resume import open_run
from tests.cluster.conftest import processes_of
from tests.drawing import draw_classes

pytestmark = pytest.mark.usefixtures("session")
SETTINGS = (
    "epochs=3",
    # Odd, so that one worker's share of a batch is larger than the other's.
    "batch_size=21",
    "validation_fraction=0.2",
    "augment.translate_px=2",
    "augment.cutmix_alpha=1",
    "class_weights=balanced",
    "schedule.name=plateau",
    # In bfloat16, which a CPU that is fast at it would take, sums differ by some percent.
    "precision=float32",
)
WORKER = "RayTrainWorker"
"""In the title of a worker's process."""
TOLERANCE = 1e-3
"""Of losses: sums of gradients are rounded in another order, and Adam divides by small ones."""


def spec_of(data: Path, run: Path, workers: int, *settings: str) -> TrainingSpec:
    config = override(get_recipe("cnn-122k"), [*SETTINGS, *settings])
    spec = TrainingSpec(
        config=config, data=str(data), run=str(run), workers=workers, code_version="0"
    )
    assert open_run(spec) is None
    return spec


def test_two_workers_give_the_loss_curve_of_one_process(tmp_path: Path) -> None:
    data = tmp_path / "classes"
    draw_classes(data, each=30)
    expected: list[EpochRow] = []
    train_here(spec_of(data, tmp_path / "one", 1), Ranks(), Watcher(on_epoch=expected.append))
    rows: list[EpochRow] = []
    spec = spec_of(data, tmp_path / "two", 2)
    metrics = train_on_ray(spec, None, Watcher(on_epoch=rows.append))
    assert [row.epoch for row in rows] == [0, 1, 2]
    for ours, one in zip(rows, expected, strict=True):
        assert ours.train_loss == pytest.approx(one.train_loss, rel=TOLERANCE)
        assert ours.validation_loss == pytest.approx(one.validation_loss, rel=TOLERANCE)
        assert ours.validation_accuracy == pytest.approx(one.validation_accuracy, abs=1e-12)
    run = TrainingRun(Path(spec.run))
    assert metrics["accuracy"] == 1.0
    assert Bundle.load(run.bundle).spec.metrics["accuracy"] == 1.0
    assert not run.progress.exists()


def test_a_killed_worker_costs_an_epoch_and_no_weight_of_a_run_that_streams(
    tmp_path: Path,
) -> None:
    data = tmp_path / "classes"
    draw_classes(data, each=30)
    (data / "red" / "11.png").write_bytes((data / "red" / "10.png").read_bytes())
    settings = ("epochs=20", "stream.enabled=true", "stream.buffer_mib=1")
    whole, disturbed = (spec_of(data, tmp_path / name, 2, *settings) for name in ("whole", "run"))
    metrics = train_on_ray(whole, None, Watcher())
    assert metrics["accuracy"] == 1.0
    assert metrics["duplicates"]["copies"] == 1
    run = TrainingRun(Path(disturbed.run))
    done: list[int] = []

    def kill(row: EpochRow) -> None:
        if not done:
            processes_of(WORKER)[0].kill()
            done.append(len(json.loads(run.history.read_text())))

    train_on_ray(disturbed, None, Watcher(on_epoch=kill))
    assert done[0] < 20
    ours, expected = (
        load_file(folder / "model.safetensors")
        for folder in (run.bundle, TrainingRun(Path(whole.run)).bundle)
    )
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    histories = [
        json.loads(TrainingRun(Path(s.run)).history.read_text()) for s in (whole, disturbed)
    ]
    losses = [[row["train_loss"] for row in rows] for rows in histories]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([0.0, 8.0], 2, 4.0),
        ([0.0, 4.0, 4.0, 4.0], 4, 2.0),
        ([4.0, 2.0], 2, 2.0),
        ([1.0, 1.0], 3, 0.5),
        ([2.0], 3, 0.5),
        ([0.0], 2, 1.0),
    ],
)
def test_workers_get_as_many_cores_as_let_all_find_a_place_at_once(
    nodes: list[float], workers: int, expected: float
) -> None:
    assert cores_each(nodes, workers) == expected


def test_wrong_data_is_told_as_without_ray(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "nowhere", tmp_path / "run", 2)
    with pytest.raises(InputError, match="is not there"):
        train_on_ray(spec, None, Watcher())


def test_what_one_worker_alone_finds_ends_the_others_and_is_told(tmp_path: Path) -> None:
    data = tmp_path / "classes"
    draw_classes(data, each=30)
    image = data / "red" / "11.png"
    spec = spec_of(data, tmp_path / "run", 2, "epochs=15", "stream.enabled=true")
    content = image.read_bytes()
    rows: list[EpochRow] = []

    def take_away(row: EpochRow) -> None:
        rows.append(row)
        image.unlink(missing_ok=True)

    with pytest.raises(InputError, match=r"11\.png of DATA was changed or taken away"):
        train_on_ray(spec, None, Watcher(on_epoch=take_away))
    assert len(rows) < 15
    image.write_bytes(content)
    train_on_ray(spec, None, Watcher(on_epoch=rows.append))
    assert len(rows) == 15
