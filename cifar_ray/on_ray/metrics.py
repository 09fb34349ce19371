"""Counters and gauges on Ray's metrics endpoint, beside Ray's own; the driver alone writes them.

An image counts when the event of its shard arrives, so that images counted since the driver's
start are the rows committed since then. Ray exports `cifar_x` as `ray_cifar_x`, counters with
`_total` behind.
"""

from collections import Counter as Tally
from collections.abc import Callable
from typing import get_args

from ray.util.metrics import Counter, Gauge, Histogram

from cifar_ray.prediction.engine import Paused, RunEvent
from cifar_ray.prediction.events import Listed, ShardDone
from cifar_ray.training.loop import EpochRow, Step
from cifar_ray.training.pipeline import Watcher
from cifar_ray.training.search.record import Records, State

IMAGES = "cifar_images"
IMAGE_BYTES = "cifar_image_bytes"
SHARDS_DONE = "cifar_shards_done"
SHARDS_LEFT = "cifar_shards_left"
SHARDS_WAITING = "cifar_shards_waiting"
RETRIES = "cifar_shard_retries"
STAGE_SECONDS = "cifar_stage_seconds"
TRAINING_LOSS = "cifar_training_loss"
VALIDATION_ACCURACY = "cifar_validation_accuracy"
TRAINING_SPEED = "cifar_training_images_per_second"
EPOCHS_DONE = "cifar_epochs_done"
TRIALS = "cifar_trials"
COUNTERS = (IMAGES, IMAGE_BYTES, SHARDS_DONE, RETRIES)
GAUGES = (
    SHARDS_LEFT,
    SHARDS_WAITING,
    TRAINING_LOSS,
    VALIDATION_ACCURACY,
    TRAINING_SPEED,
    EPOCHS_DONE,
    TRIALS,
)
HISTOGRAMS = (STAGE_SECONDS,)

PLANNED = "planned"
"""The state of a trial that has not begun."""
STAGE_BOUNDARIES_S = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class LabellingMeter:
    """Counts the events of a labelling run."""

    def __init__(self) -> None:
        self.images = Counter(IMAGES, "Images with a committed row, by status.", ("status",))
        self.image_bytes = Counter(IMAGE_BYTES, "Bytes of the images with a committed row.")
        self.shards_done = Counter(SHARDS_DONE, "Shards whose part is committed.")
        self.shards_left = Gauge(SHARDS_LEFT, "Shards that are listed and not committed.")
        self.shards_waiting = Gauge(
            SHARDS_WAITING, "Shards that are listed and in no worker's hands: the queue."
        )
        self.retries = Counter(RETRIES, "Shards that went back because the store failed.")
        self.stage_seconds = Histogram(
            STAGE_SECONDS, "Seconds of a shard in a stage.", STAGE_BOUNDARIES_S, ("stage",)
        )
        self.listed = self.done = 0

    def observe(self, event: RunEvent, in_hand: int) -> None:
        """Count one event; so many shards are in workers' hands."""
        match event:
            case ShardDone():
                self._shard_done(event)
                self._show_left(in_hand)
            case Listed():
                self.listed = event.shards
                self._show_left(in_hand)
            case Paused():
                self.retries.inc()

    def _shard_done(self, event: ShardDone) -> None:
        for status, number in event.footer.counts.items():
            if number:
                self.images.inc(number, {"status": status})
        if event.footer.image_bytes:
            self.image_bytes.inc(event.footer.image_bytes)
        for stage, seconds in event.stage_seconds.items():
            self.stage_seconds.observe(seconds, {"stage": stage})
        self.shards_done.inc()
        self.done += 1

    def _show_left(self, in_hand: int) -> None:
        left = max(0, self.listed - self.done)
        self.shards_left.set(left)
        self.shards_waiting.set(max(0, left - in_hand))


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


def metered_trials(on_change: Callable[[Records], None]) -> Callable[[Records], None]:
    """Return a watcher of a search that also shows how many trials are in which state."""
    trials = Gauge(TRIALS, "Trials of a search, by state.", ("state",))

    def show(records: Records) -> None:
        states = Tally[str](record.state for record in records.trials.values())
        states[PLANNED] = records.spec.num_trials - len(records.trials)
        for state in (PLANNED, *get_args(State)):
            trials.set(states[state], {"state": state})
        on_change(records)

    return show
