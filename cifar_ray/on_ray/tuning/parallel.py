"""One trial in several processes: a driver function in Tune that runs Ray Train.

Tune does not manage the checkpoints of such trials, so that populations cannot use it.
"""

import uuid
from pathlib import Path
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from cifar_ray.config.search import SearchSpec
from cifar_ray.config.training import TrainingConfig, TrainingSpec
from cifar_ray.on_ray.training import COLLECTIVE_TIMEOUT_S, MAX_FAILURES, ranks_of_group
from cifar_ray.on_ray.tuning.trainable import (
    TRIAL,
    Place,
    Trainable,
    own_budget,
    own_trial,
    result_of,
    training_spec,
)
from cifar_ray.on_ray.verdict import open_verdict, outcome_of, under_verdict
from cifar_ray.runs import SearchRun
from cifar_ray.training.loop import EpochRow
from cifar_ray.training.search.budget import EpochBudget
from cifar_ray.training.search.trial import attempt, hold_trial, train_trial

DRIVER_CPUS = 0.1
"""Of the function that waits for its trial's workers."""


def parallel_trainable(spec: SearchSpec, place: Place) -> Trainable:
    """Return the function that lets `place.workers` processes train a trial."""

    def train(config: dict[str, Any]) -> None:
        trial = own_trial(spec)
        ours = training_spec(spec, trial, config[TRIAL]["parameters"], place)
        with hold_trial(trial, lambda row: None), attempt(trial):
            _fit(spec, ours, place, own_budget(spec))

    return train


def _fit(spec: SearchSpec, ours: TrainingSpec, place: Place, budget: EpochBudget) -> None:
    resources = {"CPU": place.num_cpus, "GPU": place.num_gpus}
    verdict = open_verdict()
    trainer = TorchTrainer(
        _train_rank,  # type: ignore[arg-type] # its value is Result.return_value
        train_loop_config={
            "spec": ours.model_dump(mode="json"),
            "base": spec.config.model_dump(mode="json"),
            "budget": budget,
            "verdict": verdict,
        },
        scaling_config=ScalingConfig(
            num_workers=place.workers,
            use_gpu=place.num_gpus > 0,
            resources_per_worker={name: amount for name, amount in resources.items() if amount},
        ),
        run_config=RunConfig(
            # A name that was used before would silently go on with Ray's own old state.
            name=uuid.uuid4().hex,
            storage_path=str(SearchRun(Path(spec.run)).ray),
            callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call,list-item]
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
        torch_config=TorchConfig(
            backend="nccl" if place.num_gpus else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S
        ),
    )
    outcome_of(verdict, trainer.fit)


def _train_rank(content: dict[str, Any]) -> dict[str, Any]:
    """Train on this rank; what the trial came to lies in its folder."""
    spec = TrainingSpec.model_validate(content["spec"])

    def report(row: EpochRow) -> None:
        ray.train.report(result_of(row))

    def train() -> dict[str, Any]:
        train_trial(
            spec,
            TrainingConfig.model_validate(content["base"]),
            ranks_of_group(spec.device),
            report,
            content["budget"],
        )
        return {}

    return under_verdict(content["verdict"], train)
