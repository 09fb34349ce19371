"""How weights move: optimizer, learning rate over the run, and when to stop."""

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from cifar_ray.config.frozen import Fraction, FrozenConfig

Monitor = Literal["validation_loss", "validation_accuracy"]


class OptimizerConfig(FrozenConfig):
    """How weights move."""

    name: Literal["muon", "sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = Field(gt=0)
    momentum: Fraction = 0.9
    weight_decay: float = Field(0.0, ge=0)
    other_learning_rate: float | None = Field(None, gt=0)
    """With `muon`: AdamW's learning rate for all that is no convolution filter."""

    @model_validator(mode="after")
    def _muon_names_the_other_rate(self) -> "OptimizerConfig":
        if self.name == "muon" and self.other_learning_rate is None:
            raise ValueError("optimizer.other_learning_rate is needed with optimizer.name=muon")
        return self


class ScheduleConfig(FrozenConfig):
    """The learning rate over the run, as a factor of `optimizer.learning_rate`."""

    name: Literal["constant", "one-cycle", "cosine", "piecewise", "staged", "plateau"] = "constant"
    warmup_fraction: Fraction = 0.0
    """With `one-cycle` and `cosine`: share of all steps over which the factor rises to 1; then it
    falls to 0, in a line or as a cosine."""
    knots: tuple[tuple[float, float], ...] = ()
    """With `piecewise`: (epoch, factor) pairs, straight lines between them."""
    stages: tuple[tuple[int, float], ...] = ()
    """With `staged`: (epochs, learning rate) pairs, one after the other; the last one goes on."""
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    """With `plateau`: the factor each time that the monitored value has not improved."""
    plateau_patience: int = Field(2, ge=1)
    """With `plateau`: epochs without improvement before that."""
    monitor: Monitor = "validation_loss"

    @model_validator(mode="after")
    def _has_what_its_name_needs(self) -> "ScheduleConfig":
        epochs = [epoch for epoch, _ in self.knots]
        if (self.name == "piecewise") != bool(self.knots):
            raise ValueError(
                "schedule.knots is needed with, and only with, schedule.name=piecewise"
            )
        if (self.name == "staged") != bool(self.stages):
            raise ValueError("schedule.stages is needed with, and only with, schedule.name=staged")
        if any(later <= earlier for earlier, later in pairwise(epochs)):
            raise ValueError("the epochs of schedule.knots must rise")
        if any(length <= 0 or rate <= 0 for length, rate in self.stages):
            raise ValueError("schedule.stages are pairs of epochs and a rate, both above 0")
        return self


class EarlyStoppingConfig(FrozenConfig):
    """Stop when validation does not improve any more; the best epoch is kept in any case."""

    patience: int | None = Field(None, ge=1)
    """Epochs without improvement after which training ends; None trains all epochs."""
    monitor: Monitor = "validation_loss"
