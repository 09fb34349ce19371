"""What a hyperparameter search is: frozen, validated, free of torch and ray."""

from random import Random
from typing import Literal

from pydantic import Field

from cifar_ray.config.frozen import FrozenConfig
from cifar_ray.config.spaces import Parameters, Space, check_parameters
from cifar_ray.config.training import TrainingConfig
from cifar_ray.errors import InputError

SearchName = Literal["random", "grid", "tpe", "pbt"]
SchedulerName = Literal["asha", "median", "none"]
DEFAULT_TRIALS = 16
NUM_RANDOM_FIRST = 10
"""TPE begins with as many random trials."""
FIXED_WHILE_TRAINING = ("network", "epochs", "optimizer.name", "input_px", "transfer", "precision")
"""What a population cannot change in the middle of a training."""


class SearchSpec(FrozenConfig):
    """A search as it stands in `search.json`."""

    config: TrainingConfig
    """The recipe that trials change."""
    space: Space
    search: SearchName
    scheduler: SchedulerName
    num_trials: int = Field(gt=0)
    epoch_budget: int | None = Field(None, gt=0)
    """Epochs of all trials together, after which none goes on; None is as many as they take."""
    seed: int
    data: str
    run: str
    workers_per_trial: int = Field(1, ge=1)
    gpus_per_trial: float | None = Field(None, ge=0)
    """None takes a GPU a worker where there are GPUs."""
    settings: tuple[str, ...] = ()
    """What `--set` changed in the recipe."""
    code_version: str

    @property
    def max_epochs(self) -> int:
        """Epochs of the longest trial."""
        epochs = self.space.fields.get("epochs")
        if epochs is None:
            return self.config.epochs
        return max(value for value in epochs.probes() if isinstance(value, int))

    def epochs_of(self, parameters: Parameters) -> int:
        """Return the epochs that a trial is planned for."""
        epochs = parameters.get("epochs")
        return epochs if isinstance(epochs, int) else self.config.epochs


def check_search(spec: SearchSpec) -> None:
    """Raise `InputError` for what does not go together, and for trials that cannot be trained."""
    if spec.search == "pbt":
        _check_population(spec)
    gpus, workers = spec.gpus_per_trial or 0.0, spec.workers_per_trial
    if workers > 1 and gpus % workers:
        raise InputError(
            f"--gpus-per-trial {gpus:g} cannot be shared out over --workers-per-trial {workers}: "
            f"give 0, or a multiple of {workers}."
        )
    for parameters in planned(spec):
        check_parameters(spec.config, parameters, f"--space {spec.space.name}")


def _check_population(spec: SearchSpec) -> None:
    if spec.workers_per_trial > 1:
        raise InputError(
            "--search pbt trains each trial in one process, because its trials hand checkpoints "
            "to each other through Ray Tune. Leave out --workers-per-trial, or take another "
            "--search."
        )
    if spec.scheduler != "none":
        raise InputError(
            f"--search pbt decides by itself which trials go on. Leave out --scheduler "
            f"{spec.scheduler}."
        )
    if spec.num_trials < 2:
        raise InputError("--search pbt needs at least two trials: --trials 4.")
    for field in spec.space.fields:
        if any(field == name or field.startswith(name + ".") for name in FIXED_WHILE_TRAINING):
            raise InputError(
                f"--search pbt changes trials while they train, and {field} cannot change then. "
                "Take it out of the space, or take another --search."
            )


def planned(spec: SearchSpec) -> list[Parameters]:
    """Return the trials that are known before the first one has run.

    With TPE these are the first few, which are random.
    """
    if spec.search == "grid":
        return spec.space.grid()
    number = spec.num_trials
    if spec.search == "tpe":
        number = min(number, NUM_RANDOM_FIRST)
    return [random_parameters(spec, trial) for trial in range(number)]


def random_parameters(spec: SearchSpec, number: int) -> Parameters:
    """Return the parameters of a random trial, which follow from seed and number alone."""
    return spec.space.sample(Random(f"{spec.seed} {number}"))
