"""The recipe for a folder of photos of one's own."""

from cifar_ray.config.training import (
    AugmentConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
    TransferConfig,
)


def finetune() -> TrainingConfig:
    """Your own photos and any torchvision network: first its head, then all of it."""
    return TrainingConfig(
        recipe="finetune",
        network="resnet18",
        epochs=12,
        batch_size=32,
        optimizer=OptimizerConfig(name="adamw", learning_rate=1e-3, weight_decay=0.02),
        schedule=ScheduleConfig(name="cosine", warmup_fraction=0.05),
        augment=AugmentConfig(flip="random", rotation_degrees=10, zoom=0.2, shift=0.1),
        transfer=TransferConfig(pretrained=True, frozen_epochs=3, unfrozen_factor=0.1),
        normalisation="imagenet",
        label_smoothing=0.1,
        class_weights="balanced",
        validation_fraction=0.15,
        test_fraction=0.1,
    )
