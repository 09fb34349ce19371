"""The recipe of the model in the box."""

from cifar_ray.config.training import (
    AugmentConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
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
