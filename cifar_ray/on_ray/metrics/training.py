"""Metrics of a training run."""

from ray.util.metrics import Gauge

from cifar_ray.on_ray.metrics.names import (
    EPOCHS_DONE,
    TRAINING_LOSS,
    TRAINING_SPEED,
    VALIDATION_ACCURACY,
)
from cifar_ray.training.epoch import EpochRow, Step
from cifar_ray.training.pipeline import Watcher


def metered(watcher: Watcher) -> Watcher:
    """Return a watcher that also shows steps and epochs of a training run as metrics."""
    loss = Gauge(TRAINING_LOSS, "Training loss of the newest step.")
    speed = Gauge(TRAINING_SPEED, "Images a second through forward and backward, all workers.")
    accuracy = Gauge(VALIDATION_ACCURACY, "Accuracy on validation images after the last epoch.")
    epochs = Gauge(EPOCHS_DONE, "Epochs that are done, those before a restart included.")

    def on_step(step: Step) -> None:
        loss.set(step.loss)
        speed.set(step.images_per_second)
        watcher.on_step(step)

    def on_epoch(row: EpochRow) -> None:
        loss.set(row.train_loss)
        accuracy.set(row.validation_accuracy)
        epochs.set(row.epoch + 1)
        watcher.on_epoch(row)

    return Watcher(on_step, on_epoch)
