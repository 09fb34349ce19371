"""The recipes that reproduce the five reports, and what those report.

What a report leaves open is chosen here and said beside it. "All images" are CIFAR-10's 50,000
training images; the figures of recipes without a split of their own are of its test images.
"""

from dataclasses import dataclass

from cifar_ray.config.optimization import EarlyStoppingConfig
from cifar_ray.config.training import (
    AugmentConfig,
    OptimizerConfig,
    ScheduleConfig,
    SplitConfig,
    TrainingConfig,
    TransferConfig,
)

_ADAM = OptimizerConfig(name="adam", learning_rate=1e-3)
_FEW_IMAGES = SplitConfig(num_training_images=16_250, num_validation_images=8_750)
_CROP_AND_FLIP = AugmentConfig(flip="random", translate_px=4, padding="zeros")


@dataclass(frozen=True, slots=True)
class Reported:
    """What a report says that a recipe reached on CIFAR-10's original images; shares of 1."""

    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    loss: float | None = None
    remark: str = ""


REPORTED: dict[str, Reported] = {
    "cnn-122k": Reported(accuracy=0.7106),
    "resnet50-frozen": Reported(accuracy=0.6428),
    "cnn-2.9m": Reported(0.5493, 0.5556, 0.5493, 0.5445),
    "resnet50-mlp": Reported(0.6333, 0.6710, 0.6333, 0.6281),
    "resnet-blocks": Reported(accuracy=0.8874, loss=0.5771),
    "cnn-bn-plain": Reported(remark="the report's first training; it gives figures for the second"),
    "cnn-bn": Reported(accuracy=0.90, remark="reported as above 90 %, loss 0.3 to 0.4"),
    "cnn-3conv": Reported(
        0.1036,
        0.0731,
        0.1036,
        0.0321,
        remark="theirs is chance: an F1 of 3 % means that nearly all images got one class, as from "
        "a network whose weights were never trained or not the ones evaluated",
    ),
    "resnet18-finetune": Reported(remark="best of its report, which gives no figure"),
    "vgg16-frozen": Reported(remark="the report gives 1,700 images/s on its GPU, no accuracy"),
    "vgg16-finetune": Reported(remark="the report gives 867 images/s on its GPU, no accuracy"),
}
"""In the order in which `--recipe reports` trains them."""


def cnn_122k() -> TrainingConfig:
    """Three plain convolutions for ten epochs, on 80/10/10 of all images."""
    return TrainingConfig(
        recipe="cnn-122k",
        network="cnn-122k",
        expected_accuracy=0.722,
        epochs=10,
        batch_size=32,
        optimizer=_ADAM,
        # A constant rate reaches 69.5 % on these images, which are lossy: less than reported.
        schedule=ScheduleConfig(name="cosine"),
        test_fraction=0.1,
        splits=SplitConfig(leave_test_images=True),
    )


def resnet50_frozen() -> TrainingConfig:
    """ResNet-50 with ImageNet's weights, frozen, under a new dense layer; 80/10/10."""
    return TrainingConfig(
        recipe="resnet50-frozen",
        network="resnet50",
        epochs=10,
        batch_size=32,
        optimizer=_ADAM,
        transfer=TransferConfig(pretrained=True, frozen_epochs=10),
        normalisation="imagenet",
        test_fraction=0.1,
        splits=SplitConfig(leave_test_images=True),
    )


def cnn_2_9m() -> TrainingConfig:
    """Six convolutions and two wide dense layers with dropout, on 16,250 images."""
    return TrainingConfig(
        recipe="cnn-2.9m",
        network="cnn-2.9m",
        expected_accuracy=0.662,
        epochs=10,
        batch_size=128,
        optimizer=_ADAM,
        splits=_FEW_IMAGES,
    )


def resnet50_mlp() -> TrainingConfig:
    """ResNet-50's features of 32×32 images, frozen, under 1024, 512 and 10; 16,250 images."""
    return TrainingConfig(
        recipe="resnet50-mlp",
        network="resnet50-mlp",
        epochs=10,
        batch_size=128,
        optimizer=_ADAM,
        transfer=TransferConfig(pretrained=True, frozen_epochs=10),
        normalisation="imagenet",
        input_px=32,  # the report's feature maps are 1×1, as they are of its 32×32 images
        splits=_FEW_IMAGES,
    )


def resnet_blocks() -> TrainingConfig:
    """Four residual blocks of 64 to 512 filters; rotated, shifted, flipped; three stages."""
    return TrainingConfig(
        recipe="resnet-blocks",
        network="resnet-blocks",
        expected_accuracy=0.881,
        epochs=35,
        batch_size=64,
        optimizer=OptimizerConfig(name="adam", learning_rate=3e-4),
        schedule=ScheduleConfig(name="staged", stages=((20, 3e-4), (10, 1e-4), (5, 5e-5))),
        augment=AugmentConfig(flip="random", rotation_degrees=15, shift=0.1),
        validation_fraction=0.05,
    )


def cnn_bn_plain() -> TrainingConfig:
    """Convolutions of 32 to 128 filters with batch norm; early stopping, halved on a plateau."""
    return TrainingConfig(
        recipe="cnn-bn-plain",
        network="cnn-bn",
        expected_accuracy=0.827,
        epochs=60,
        batch_size=128,
        optimizer=_ADAM,
        schedule=ScheduleConfig(name="plateau", plateau_factor=0.5, plateau_patience=3),
        early_stopping=EarlyStoppingConfig(patience=10),
        validation_fraction=0.05,
    )


def cnn_bn() -> TrainingConfig:
    """The same network with rotated, zoomed, shifted and mirrored images, held from overfitting.

    With no more than the report names, the network learnt the training images by heart (93 % at the
    end) and labelled 84.3 % of the test images right. Mirroring, cutout, smoothed labels, decayed
    and averaged weights are what it took to learn for long; the rate first falls after 56 epochs.
    """
    return cnn_bn_plain().model_copy(
        update={
            "recipe": "cnn-bn",
            "expected_accuracy": 0.868,
            "epochs": 100,
            "optimizer": OptimizerConfig(name="adamw", learning_rate=1e-3, weight_decay=0.1),
            "augment": AugmentConfig(
                rotation_degrees=15, zoom=0.1, shift=0.1, flip="random", cutout_px=8
            ),
            "label_smoothing": 0.1,
            "weight_average_decay": 0.998,
        }
    )


def cnn_3conv() -> TrainingConfig:
    """Three convolutions with pooling and one dense layer; cropped and flipped."""
    return TrainingConfig(
        recipe="cnn-3conv",
        network="cnn-3conv",
        expected_accuracy=0.757,
        epochs=10,
        batch_size=32,
        optimizer=_ADAM,
        augment=_CROP_AND_FLIP,
        validation_fraction=0.05,
    )


def resnet18_finetune() -> TrainingConfig:
    """ResNet-18 with ImageNet's weights and a new last layer, all of it trained."""
    return TrainingConfig(
        recipe="resnet18-finetune",
        network="resnet18",
        epochs=10,
        batch_size=32,
        # A tenth of the report's rate for its other networks: ImageNet's filters shall last.
        optimizer=OptimizerConfig(name="adam", learning_rate=1e-4),
        augment=_CROP_AND_FLIP,
        transfer=TransferConfig(pretrained=True),
        normalisation="imagenet",
        input_px=32,
        validation_fraction=0.05,
    )


def vgg16_frozen() -> TrainingConfig:
    """VGG-16 with ImageNet's weights, frozen but for a new last layer."""
    return TrainingConfig(
        recipe="vgg16-frozen",
        network="vgg16",
        epochs=10,
        batch_size=32,
        optimizer=_ADAM,
        augment=_CROP_AND_FLIP,
        transfer=TransferConfig(pretrained=True, frozen_epochs=10),
        normalisation="imagenet",
        input_px=32,
        validation_fraction=0.05,
    )


def vgg16_finetune() -> TrainingConfig:
    """The same for 5 epochs, then 10 with all of it trained at a fiftieth of the rate."""
    return vgg16_frozen().model_copy(
        update={
            "recipe": "vgg16-finetune",
            "epochs": 15,
            # 2e-5: VGG-16 has no batch norm to forgive a large step.
            "transfer": TransferConfig(pretrained=True, frozen_epochs=5, unfrozen_factor=0.02),
        }
    )
