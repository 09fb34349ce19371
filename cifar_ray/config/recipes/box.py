"""The recipes of the model in the box: a start, and what goes on from it."""

from cifar_ray.config.training import (
    AugmentConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
    TransferConfig,
)


def speednet_box_start() -> TrainingConfig:
    """The start of the model in the box: `speednet-2m` in 46 epochs, for a CPU's budget.

    Four cycles of the learning rate; the weights at their ends are averaged, which is worth more
    than as many epochs in one cycle. I. Loshchilov, F. Hutter, "SGDR" (arXiv:1608.03983);
    P. Izmailov et al., "Averaging Weights Leads to Wider Optima" (arXiv:1803.05407).
    """
    return TrainingConfig(
        recipe="speednet-box-start",
        network="speednet-2m",
        epochs=46,
        batch_size=500,
        optimizer=OptimizerConfig(
            name="muon", learning_rate=0.08, momentum=0.8, other_learning_rate=0.005
        ),
        schedule=ScheduleConfig(
            name="piecewise",
            knots=(
                *((0, 0.02), (0.5, 1.0), (11, 0.55), (20, 0.0)),
                *((21, 0.5), (34, 0.0)),
                *((34.5, 0.5), (39, 0.0)),
                *((39.5, 0.5), (46, 0.0)),
            ),
        ),
        augment=AugmentConfig(flip="alternate", translate_px=4, cutout_px=8),
        label_smoothing=0.1,
        weight_average_decay=0.98,
        average_epochs=(19, 20, 33, 34, 39, 46),
        small_image_px=24,
        small_image_fraction=13 / 46,
        validation_fraction=0.05,
        weights_dtype="bfloat16",
        expected_accuracy=0.909,
        minutes=289,
    )


def speednet_box() -> TrainingConfig:
    """The model in the box: goes on from the start's weights, regularised far more.

    The start knows 98.5 % of its training images and 91.4 % of others; so images are mixed and
    changed in more ways here (cutmix or a little mixup a batch, one operation of RandAugment an
    image), and more of them are trained on. Took 73 minutes on one core with bfloat16.
    """
    return TrainingConfig(
        recipe="speednet-box",
        network="speednet-2m",
        epochs=24,
        batch_size=500,
        optimizer=OptimizerConfig(
            name="muon", learning_rate=0.06, momentum=0.8, other_learning_rate=0.005
        ),
        schedule=ScheduleConfig(name="piecewise", knots=((0, 0.1), (1, 0.7), (24, 0.0))),
        augment=AugmentConfig(
            flip="alternate",
            translate_px=4,
            randaugment_ops=1,
            randaugment_magnitude=6,
            cutout_px=8,
            mixup_alpha=0.2,
            cutmix_alpha=1.0,
        ),
        transfer=TransferConfig(pretrained=True),
        label_smoothing=0.05,
        weight_average_decay=0.99,
        validation_fraction=0.03,
        weights_dtype="bfloat16",
        expected_accuracy=0.912,
    )
