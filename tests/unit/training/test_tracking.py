"""What MLflow has of a training, in a real store of its own: a database file."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingSpec, override
from cifar_ray.errors import InputError
from cifar_ray.training.loop import EpochRow, Ranks
from cifar_ray.training.pipeline import Watcher, train
from cifar_ray.training.resume import open_run
from tests.drawing import draw_classes
from tests.required import require

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database for all tests, since MLflow takes seconds to make one."""
    require("mlflow", find_spec("mlflow"), "MLflow is not installed")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def client(
    store: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> "MlflowClient":
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.chdir(tmp_path)
    return MlflowClient()


@pytest.fixture
def spec(tmp_path: Path) -> TrainingSpec:
    draw_classes(tmp_path / "classes", each=12)
    config = override(get_recipe("cnn-122k"), ["epochs=3", "augment.translate_px=2"])
    return TrainingSpec(
        config=config,
        data=str(tmp_path / "classes"),
        run=str(tmp_path / "first"),
        mlflow=True,
        code_version="0",
    )


def start(spec: TrainingSpec, on_epoch: Callable[[EpochRow], None] = lambda row: None) -> list[str]:
    """Train and return what was told of faults of MLflow."""
    from cifar_ray.training.tracking import tracked

    open_run(spec)
    faults: list[str] = []

    def train_here(watcher: Watcher) -> dict[str, Any]:
        metrics = train(spec, Ranks(), watcher)
        assert metrics is not None
        return metrics

    tracked(spec, Watcher(on_epoch=on_epoch), train_here, faults.append)
    return faults


def runs_of(client: "MlflowClient") -> "list[Run]":
    experiment = client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def steps_of(client: "MlflowClient", run: "Run", name: str = "train_loss") -> list[int]:
    return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]


def test_mlflow_has_the_params_a_row_an_epoch_and_the_metrics(
    client: "MlflowClient", spec: TrainingSpec
) -> None:
    rows: list[EpochRow] = []
    assert start(spec, rows.append) == []
    (run,) = runs_of(client)
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params["recipe"] == "cnn-122k"
    assert run.data.params["augment.translate_px"] == "2"
    assert run.data.params["data"] == spec.data
    history = client.get_metric_history(run.info.run_id, "validation_loss")
    assert [(m.step, m.value) for m in history] == [(r.epoch, r.validation_loss) for r in rows]
    metrics = open_run(spec)
    assert metrics is not None
    assert run.data.metrics["final.accuracy"] == metrics["accuracy"]


def test_a_training_that_goes_on_goes_on_in_the_same_run_with_what_a_kill_left_out(
    client: "MlflowClient", spec: TrainingSpec
) -> None:
    def interrupt(row: EpochRow) -> None:
        raise KeyboardInterrupt

    # The epoch is in the run's own history, and MLflow is not told of it any more.
    with pytest.raises(KeyboardInterrupt):
        start(spec, interrupt)
    (stopped,) = runs_of(client)
    assert (stopped.info.status, steps_of(client, stopped)) == ("KILLED", [])
    start(spec)
    (run,) = runs_of(client)
    assert run.info.run_id == stopped.info.run_id
    assert (run.info.status, steps_of(client, run)) == ("FINISHED", [0, 1, 2])


def test_another_training_in_the_same_place_is_another_run(
    client: "MlflowClient", spec: TrainingSpec
) -> None:
    def stop(row: EpochRow) -> None:
        raise RuntimeError("full disk")

    with pytest.raises(RuntimeError):
        start(spec, stop)
    Path(spec.run).rename(Path(spec.run).with_name("moved"))
    start(spec)
    assert sorted(run.info.status for run in runs_of(client)) == ["FAILED", "FINISHED"]


def test_mlflow_tells_its_makers_nothing_unless_the_user_lets_it(store: str) -> None:
    script = (
        "import cifar_ray.training.tracking\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "print(get_telemetry_client() is None)"
    )
    # MLflow takes a test or CI, which these variables tell of, for no user.
    silent = {"MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI", "GITHUB_ACTIONS"}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in silent and not name.startswith("PYTEST")
    }
    environment["https_proxy"] = "http://127.0.0.1:9"  # nobody listens there
    told = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout == "True\n"


def test_a_server_that_cannot_be_used_is_told_before_training(
    client: "MlflowClient", spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match=r"--mlflow: MLflow cannot be used: .*127\.0\.0\.1"):
        start(spec, lambda row: pytest.fail("it trains"))


def test_a_server_that_is_lost_does_not_end_training_and_gets_the_rest_at_the_end(
    client: "MlflowClient", spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    log_batch = MlflowClient.log_batch

    def refuse(*arguments: object, **more: object) -> None:
        raise MlflowException("the server is away")

    def lose(row: EpochRow) -> None:
        monkeypatch.setattr(MlflowClient, "log_batch", refuse if row.epoch < 2 else log_batch)

    faults = start(spec, lose)
    assert len(faults) == 1
    assert "the server is away. The run's own folder has all of it." in faults[0]
    (run,) = runs_of(client)
    assert (run.info.status, steps_of(client, run)) == ("FINISHED", [0, 1, 2])
