"""What a training run is: frozen, validated, free of torch, so that the CLI answers at once."""

import json
import shlex
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from cifar_ray.config.augmentation import AugmentConfig as AugmentConfig
from cifar_ray.config.frozen import Fraction, FrozenConfig
from cifar_ray.config.optimization import EarlyStoppingConfig
from cifar_ray.config.optimization import OptimizerConfig as OptimizerConfig
from cifar_ray.config.optimization import ScheduleConfig as ScheduleConfig
from cifar_ray.errors import InputError, did_you_mean

FROM_SCRATCH = ("transfer.pretrained=false", "transfer.frozen_epochs=0")
"""Settings that make a recipe do without pretrained weights."""

TOLD = frozenset({"expected_accuracy", "minutes"})
"""Fields of a config that tell of its recipe, and change nothing of a training."""


class TransferConfig(FrozenConfig):
    """Training that starts from ImageNet's weights, and holds them for a while or for good."""

    pretrained: bool = False
    frozen_epochs: int = Field(0, ge=0)
    """So many epochs train the head alone; the rest, batch-norm statistics included, stays."""
    unfrozen_factor: float = Field(1.0, gt=0)
    """Factor of the learning rate after that."""


class SplitConfig(FrozenConfig):
    """Which images are for training, for validation and for the last number."""

    num_training_images: int | None = Field(None, gt=0)
    """So many instead of all that are left."""
    num_validation_images: int | None = Field(None, gt=0)
    """So many instead of `validation_fraction`."""
    leave_test_images: bool = False
    """Leave test images that DATA brings alone, and hold out `test_fraction` of the others."""


class StreamConfig(FrozenConfig):
    """Training images that neither memory nor disk has room for."""

    enabled: bool = False
    """Read and decode training images anew in each epoch, instead of once. It is not chosen by the
    machine, since it decides on the order of images."""
    buffer_mib: int = Field(1024, gt=0)
    """Memory of each worker for decoded images, of which batches are drawn."""


class TrainingConfig(FrozenConfig):
    """One training run, whole."""

    recipe: str
    network: str
    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    """Images a step over all workers."""
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    augment: AugmentConfig = AugmentConfig()
    transfer: TransferConfig = TransferConfig()
    label_smoothing: Fraction = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` gives every class the same weight in the loss, however few images it has."""
    weight_average_decay: Fraction = 0.0
    """Decay a step of the moving average of weights that is evaluated and kept; 0 is off."""
    average_epochs: tuple[int, ...] = ()
    """Numbers of epochs done, such as the ends of a schedule's cycles, after which the weights are
    averaged once more for the bundle; none is the best epoch's weights as they are."""
    input_px: int | None = Field(None, gt=0)
    """Side of the images; None is what the network is meant for."""
    normalisation: Literal["data", "imagenet"] = "data"
    """Whose mean and deviation pixels are normalised by."""
    small_image_px: int | None = Field(None, gt=0)
    """Side to which training images are scaled in the first `small_image_fraction` of epochs."""
    small_image_fraction: Fraction = 0.0
    validation_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    test_fraction: Fraction = 0.0
    """Held out of DATA for the last number when DATA brings no test images of its own."""
    splits: SplitConfig = SplitConfig()
    stream: StreamConfig = StreamConfig()
    test_time_augmentation: Literal["none", "flip", "flip-shift"] = "none"
    """Views over which a second accuracy is measured; the bundle labels without them."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    """How the bundle stores filters and matrices."""
    seed: int = 0
    expected_accuracy: float | None = None
    """Test accuracy that the recipe reached on CIFAR-10; shown by `recipes`."""
    minutes: float | None = None
    """How long it took on two CPU cores."""

    @model_validator(mode="after")
    def _averages_epochs_that_there_are(self) -> "TrainingConfig":
        if any(not 1 <= done <= self.epochs for done in self.average_epochs):
            raise ValueError(f"average_epochs must lie between 1 and epochs, {self.epochs}")
        return self

    @model_validator(mode="after")
    def _freezes_what_is_pretrained(self) -> "TrainingConfig":
        if self.transfer.frozen_epochs and not self.transfer.pretrained:
            raise ValueError("transfer.frozen_epochs would freeze random weights; set it to 0")
        return self


class TrainingSpec(FrozenConfig):
    """A run as the driver hands it to whatever trains: `config.json`, and a job's one file."""

    config: TrainingConfig
    data: str
    """`cifar10`, a folder with a sub-folder a class, Parquet, or tar shards."""
    run: str
    weights: str | None = None
    """A file with pretrained weights; None takes those of the cache, or downloads them."""
    device: str = "cpu"
    threads: int = Field(1, ge=1)
    """CPU threads a worker."""
    settings: tuple[str, ...] = ()
    """What `--set` and `--from-scratch` changed in the recipe."""
    workers: int = Field(1, ge=1)
    """Processes that train together."""
    mlflow: bool = False
    """Tell MLflow of the run, too."""
    code_version: str

    @property
    def command(self) -> str:
        """What trains the same again, but for the folder."""
        name = self.data if self.data == "cifar10" else "FOLDER"
        settings = "".join(f" --set {shlex.quote(setting)}" for setting in self.settings)
        weights = " --weights FILE" if self.weights else ""
        return f"cifar-ray train {name} --recipe {self.config.recipe} --out RUN{settings}{weights}"


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
                f"--set {key}: there is no such field. {did_you_mean(key, config.flat())}"
            )
        place[field] = _value(text)
    try:
        return TrainingConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if not where:  # fields that do not go together
            raise InputError(f"--set: {first['msg']}.") from error
        raise InputError(f"--set {where}: {first['msg']} (given: {first['input']!r}).") from error


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
