"""Metrics of a labelling run."""

from ray.util.metrics import Counter, Gauge, Histogram

from cifar_ray.on_ray.metrics.names import (
    IMAGE_BYTES,
    IMAGES,
    RETRIES,
    SHARDS_DONE,
    SHARDS_LEFT,
    SHARDS_WAITING,
    STAGE_SECONDS,
)
from cifar_ray.prediction.engine import Paused, RunEvent
from cifar_ray.prediction.events import Listed, ShardDone

STAGE_BOUNDARIES_S = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class LabellingMeter:
    """Counts the events of a labelling run.

    An image counts when the event of its shard arrives, so that images counted since the driver's
    start are the rows committed since then.
    """

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
