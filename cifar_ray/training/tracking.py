"""A training run as MLflow shows it, for those who ask with `--mlflow`.

The driver tells MLflow, not a rank: so the user's own environment says where, with Ray and without
(MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and what else MLflow reads), and no worker needs a
password. A training that goes on goes on in the same run of MLflow, and a server that fails does
not end it.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cifar_ray.config.training import TrainingSpec
from cifar_ray.errors import InputError, printable
from cifar_ray.training.epoch import EpochRow
from cifar_ray.training.pipeline import Watcher
from cifar_ray.training.place import open_place

# Before MLflow is imported, which else tells its makers how it is used.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus
from mlflow.exceptions import MlflowException

EXPERIMENT = "cifar-ray"
"""Unless MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID says otherwise."""
PLACE_TAG = "cifar_ray.place"
"""Digest of the run's place, by which a training that goes on finds its run of MLflow."""
FINAL = "final."
"""Before the names of the metrics at the end, which would else be taken for those of an epoch."""

Metrics = dict[str, Any]
OnFault = Callable[[str], None]
"""Is told, in a sentence, that MLflow lacks something."""


def tracked(
    spec: TrainingSpec,
    watcher: Watcher,
    train: Callable[[Watcher], Metrics],
    on_fault: OnFault,
) -> Metrics:
    """Train, and let MLflow have the params, a row an epoch and the metrics.

    Raises `InputError` before training if MLflow's server cannot be used.
    """
    run = _open(spec, on_fault)

    def on_epoch(row: EpochRow) -> None:
        watcher.on_epoch(row)
        run.add(row)

    try:
        metrics = train(Watcher(watcher.on_step, on_epoch))
    except KeyboardInterrupt:
        run.end(RunStatus.KILLED)
        raise
    except Exception:
        run.end(RunStatus.FAILED)
        raise
    run.end(RunStatus.FINISHED, metrics)
    return metrics


class _Run:
    """A run of MLflow. `waiting` are rows that it lacks."""

    def __init__(self, client: MlflowClient, run_id: str, on_fault: OnFault) -> None:
        self.client = client
        self.run_id = run_id
        self.on_fault = on_fault
        self.waiting: list[EpochRow] = []
        self.is_lost = False

    def add(self, row: EpochRow) -> None:
        """Log a row, and those that wait."""
        self.waiting.append(row)
        # MLflow tries again for minutes; once is enough, and then at the end.
        if not self.is_lost:
            self._try(self._log_rows)

    def end(self, status: int, metrics: Metrics | None = None) -> None:
        """Log what waits and the metrics, and say how it ended."""

        def log() -> None:
            self._log_rows()
            self._log({f"{FINAL}{name}": value for name, value in (metrics or {}).items()}, 0)
            self.client.set_terminated(self.run_id, RunStatus.to_string(status))

        # Who has stopped a training does not wait for a server that was lost before.
        if metrics is not None or not self.is_lost:
            self._try(log)

    def _log_rows(self) -> None:
        while self.waiting:
            self._log(self.waiting[0].as_dict(), self.waiting[0].epoch)
            self.waiting.pop(0)

    def _log(self, values: Metrics, step: int) -> None:
        now_ms = int(time.time() * 1000)
        self.client.log_batch(
            self.run_id,
            metrics=[
                Metric(name, float(value), now_ms, step)
                for name, value in values.items()
                if isinstance(value, int | float)
            ],
        )

    def _try(self, log: Callable[[], None]) -> None:
        try:
            log()
        except MlflowException as error:
            self.is_lost = True
            self.on_fault(
                f"MLflow lacks what this run has now: {printable(_first_line(error))} The run's "
                "own folder has all of it."
            )


def _open(spec: TrainingSpec, on_fault: OnFault) -> _Run:
    done = _rows_done(spec)
    try:
        client = MlflowClient()
        experiment_id = _experiment(client)
        run_id = _unfinished(client, experiment_id, spec) if done else None
        if run_id is None:
            run_id = _start(client, experiment_id, spec)
        client.update_run(run_id, RunStatus.to_string(RunStatus.RUNNING))
        told = {metric.step for metric in client.get_metric_history(run_id, "train_loss")}
        run = _Run(client, run_id, on_fault)
        # What a kill left out between a checkpoint and here.
        run.waiting = [row for row in done if row.epoch not in told]
        run._log_rows()
    except MlflowException as error:
        raise InputError(
            f"--mlflow: MLflow cannot be used: {_first_line(error)} MLFLOW_TRACKING_URI says where"
            " it is; without it, it is mlflow.db in this folder."
        ) from error
    return run


def _rows_done(spec: TrainingSpec) -> list[EpochRow]:
    with open_place(spec.run) as place:
        place.fetch(place.run.history)
        if not place.run.history.exists():
            return []
        return [EpochRow(**row) for row in json.loads(place.run.history.read_text())]


def _experiment(client: MlflowClient) -> str:
    """Return the experiment that the environment names, or ours; it is made if it is not there."""
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _unfinished(client: MlflowClient, experiment_id: str, spec: TrainingSpec) -> str | None:
    found = client.search_runs(
        [experiment_id], f"tags.`{PLACE_TAG}` = '{_digest(spec.run)}'", max_results=1
    )
    ended = RunStatus.to_string(RunStatus.FINISHED)
    return str(found[0].info.run_id) if found and found[0].info.status != ended else None


def _start(client: MlflowClient, experiment_id: str, spec: TrainingSpec) -> str:
    run = client.create_run(
        experiment_id, tags={PLACE_TAG: _digest(spec.run)}, run_name=Path(spec.run).name
    )
    content = spec.model_dump(mode="json", exclude={"config", "settings"})
    params = [*_flat(spec.config.model_dump(mode="json")), *_flat(content)]
    client.log_batch(run.info.run_id, params=[Param(name, value) for name, value in params])
    return str(run.info.run_id)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield names with dots for what lies deeper, as `--set` has them, and values as text."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def _digest(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()


def _first_line(error: MlflowException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."
