"""The recipes: each a named function that returns a whole training config."""

from collections.abc import Callable

from cifar_ray.config.training import (
    AugmentConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from cifar_ray.errors import InputError, did_you_mean


def cnn_122k() -> TrainingConfig:
    """Three plain convolutions for ten epochs: the first CIFAR-10 report's network."""
    return TrainingConfig(
        recipe="cnn-122k",
        network="cnn-122k",
        epochs=10,
        batch_size=32,
        optimizer=OptimizerConfig(name="adam", learning_rate=1e-3),
    )


def speednet_box() -> TrainingConfig:
    """The model in the box: `speednet-2m`, regularised, for a CPU's budget."""
    return TrainingConfig(
        recipe="speednet-box",
        network="speednet-2m",
        epochs=20,
        batch_size=500,
        optimizer=OptimizerConfig(
            name="muon", learning_rate=0.08, momentum=0.8, other_learning_rate=0.005
        ),
        schedule=ScheduleConfig(
            name="piecewise", knots=((0, 0.02), (0.5, 1.0), (11, 0.55), (20, 0.0))
        ),
        augment=AugmentConfig(flip="alternate", translate_px=4, cutout_px=8),
        label_smoothing=0.1,
        weight_average_decay=0.98,
        small_image_px=24,
        small_image_fraction=0.65,
        validation_fraction=0.05,
        weights_dtype="bfloat16",
        expected_accuracy=0.901,
        minutes=97,
    )


RECIPES: dict[str, Callable[[], TrainingConfig]] = {
    "cnn-122k": cnn_122k,
    "speednet-box": speednet_box,
}


def get_recipe(name: str) -> TrainingConfig:
    """Return the config of a recipe; `InputError` names the nearest ones."""
    if name not in RECIPES:
        raise InputError(f"There is no recipe {name!r}. {did_you_mean(name, RECIPES)}")
    return RECIPES[name]()
