"""One trial in one process: a plain function, in an actor that runs one trial after another."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray import tune

from cifar_ray.config.search import SearchSpec
from cifar_ray.config.spaces import Parameters, apply
from cifar_ray.config.training import TrainingSpec
from cifar_ray.runs import SearchRun, TrialRun
from cifar_ray.training.loop import EpochRow, Ranks
from cifar_ray.training.search.budget import EpochBudget
from cifar_ray.training.search.trial import attempt, hold_trial, take_over, train_trial

METRIC = "validation_accuracy"
EPOCHS = "epochs_done"
TRIAL = "trial"
"""The one key of Tune's config for a trial."""
Trainable = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Place:
    """What a trial's processes have each."""

    device: str
    threads: int
    num_cpus: float
    num_gpus: float
    workers: int = 1


def trial_config(number: int, parameters: Parameters) -> dict[str, Any]:
    """Return what Tune keeps of a trial; an exploit replaces it, but not the trial's name."""
    return {TRIAL: {"number": number, "parameters": parameters}}


def trial_name(trial: Any) -> str:
    """Return a trial's name, which is its number, whatever config it goes on with later."""
    return f"{trial.config[TRIAL]['number']:04d}"


def own_trial(spec: SearchSpec) -> TrialRun:
    """Return the paths of the trial that this worker runs."""
    return SearchRun(Path(spec.run)).trial(_own_number())


def own_budget(spec: SearchSpec) -> EpochBudget:
    """Return what the trial that this worker runs may take of its search's epochs."""
    return EpochBudget.of(spec, _own_number())


def _own_number() -> int:
    return int(tune.get_context().get_trial_name())


def training_spec(
    spec: SearchSpec, trial: TrialRun, parameters: Parameters, place: Place
) -> TrainingSpec:
    """Return the trial as the training of `training/search/trial.py` takes it."""
    return TrainingSpec(
        config=apply(spec.config, parameters),
        data=spec.data,
        run=str(trial.folder),
        device=place.device,
        threads=place.threads,
        workers=place.workers,
        code_version=spec.code_version,
    )


def result_of(row: EpochRow) -> dict[str, float]:
    """Return an epoch as Tune is told of it."""
    return {**asdict(row), EPOCHS: row.epoch + 1}


def plain_trainable(spec: SearchSpec, place: Place) -> Trainable:
    """Return the function that trains a trial in the process that calls it."""

    def train(config: dict[str, Any]) -> None:
        trial = own_trial(spec)

        def tell(row: EpochRow) -> None:
            tune.report(result_of(row))

        with hold_trial(trial, tell) as report, attempt(trial):
            ours = training_spec(spec, trial, config[TRIAL]["parameters"], place)
            train_trial(ours, spec.config, Ranks(), report, own_budget(spec))

    return train


def member_trainable(spec: SearchSpec, place: Place) -> Trainable:
    """Return the function that trains a member of a population, from whose checkpoint ever."""

    def train(config: dict[str, Any]) -> None:
        trial = own_trial(spec)

        def tell(row: EpochRow) -> None:
            folder = tune.Checkpoint.from_directory(str(trial.training.checkpoints))
            tune.report(result_of(row), checkpoint=folder)

        with hold_trial(trial, tell) as report, attempt(trial):
            given = tune.get_checkpoint()
            if given is not None:
                with given.as_directory() as folder:
                    take_over(trial, Path(folder))
            ours = training_spec(spec, trial, config[TRIAL]["parameters"], place)
            # Rows that are trained already are no news to a population: they may be another's.
            train_trial(ours, spec.config, Ranks(), report, own_budget(spec), again=False)

    return train
