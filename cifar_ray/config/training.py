"""What a training run is: frozen, validated, free of torch, so that the CLI answers at once."""

import json
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cifar_ray.errors import InputError, did_you_mean

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AugmentConfig(_Config):
    """Random changes of training images, drawn on the device for a batch at a time."""

    flip: Literal["none", "random", "alternate"] = "none"
    """`alternate` flips each image in every second epoch, so that two epochs see both views."""
    translate_px: int = Field(0, ge=0)
    """Shift by up to so many pixels each way, edges reflected."""
    cutout_px: int = Field(0, ge=0)
    """Side of the square that is set to the mean colour."""


class OptimizerConfig(_Config):
    """How weights move."""

    name: Literal["muon", "sgd", "adam"] = "sgd"
    learning_rate: float = Field(gt=0)
    momentum: Fraction = 0.9
    weight_decay: float = Field(0.0, ge=0)
    other_learning_rate: float | None = Field(None, gt=0)
    """With `muon`: Adam's learning rate for all that is no convolution filter."""

    @model_validator(mode="after")
    def _muon_names_the_other_rate(self) -> "OptimizerConfig":
        if self.name == "muon" and self.other_learning_rate is None:
            raise ValueError("optimizer.other_learning_rate is needed with optimizer.name=muon")
        return self


class ScheduleConfig(_Config):
    """The learning rate over the run, as a factor of `optimizer.learning_rate`."""

    name: Literal["constant", "one-cycle", "piecewise"] = "constant"
    warmup_fraction: Fraction = 0.0
    """With `one-cycle`: share of all steps over which the factor rises to 1; then it falls to 0."""
    knots: tuple[tuple[float, float], ...] = ()
    """With `piecewise`: (epoch, factor) pairs, straight lines between them."""

    @model_validator(mode="after")
    def _knots_are_those_of_piecewise(self) -> "ScheduleConfig":
        epochs = [epoch for epoch, _ in self.knots]
        if (self.name == "piecewise") != bool(self.knots):
            raise ValueError(
                "schedule.knots is needed with, and only with, schedule.name=piecewise"
            )
        if any(later <= earlier for earlier, later in pairwise(epochs)):
            raise ValueError("the epochs of schedule.knots must rise")
        return self


class TrainingConfig(_Config):
    """One training run, whole."""

    recipe: str
    network: str
    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    """Images a step over all workers."""
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()
    label_smoothing: Fraction = 0.0
    weight_average_decay: Fraction = 0.0
    """Decay a step of the moving average of weights that is evaluated and kept; 0 is off."""
    small_image_px: int | None = Field(None, gt=0)
    """Side to which training images are scaled in the first `small_image_fraction` of epochs."""
    small_image_fraction: Fraction = 0.0
    validation_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    test_fraction: Fraction = 0.0
    """Held out of DATA for the last number when DATA brings no test images of its own."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    """How the bundle stores filters and matrices."""
    seed: int = 0
    expected_accuracy: float | None = None
    """Test accuracy that the recipe reached on CIFAR-10; shown by `recipes`."""
    minutes: float | None = None
    """How long it took on two CPU cores."""


class TrainingSpec(_Config):
    """A run as the driver hands it to whatever trains: `config.json`, and a job's one file."""

    config: TrainingConfig
    data: str
    """`cifar10`, or a folder with a sub-folder a class."""
    run: str
    device: str = "cpu"
    threads: int = Field(1, ge=1)
    """CPU threads a worker."""
    settings: tuple[str, ...] = ()
    """What `--set` changed in the recipe."""
    workers: int = Field(1, ge=1)
    """Processes that train together."""
    code_version: str

    @property
    def command(self) -> str:
        """What trains the same again, but for the folder."""
        name = self.data if self.data == "cifar10" else "FOLDER"
        settings = "".join(f" --set {setting}" for setting in self.settings)
        return f"cifar-ray train {name} --recipe {self.config.recipe} --out RUN{settings}"


def override(config: TrainingConfig, settings: list[str]) -> TrainingConfig:
    """Apply `--set key=value`, with dots for what lies deeper; values are JSON or plain words.

    Raises `InputError` that names the nearest field, or what is wrong with the value.
    """
    values = config.model_dump()
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise InputError(f"--set {setting}: write key=value, for example --set epochs=5.")
        *groups, field = key.strip().split(".")
        place = values
        for group in groups:
            deeper = place.get(group)
            place = deeper if isinstance(deeper, dict) else {}
        if field not in place or isinstance(place[field], dict):
            raise InputError(
                f"--set {key}: there is no such field. {did_you_mean(key, _keys(values))}"
            )
        place[field] = _value(text)
    try:
        return TrainingConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"--set {where}: {first['msg']} (given: {first['input']!r}).") from error


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in values.items():
        if isinstance(value, dict):
            keys += _keys(value, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys
