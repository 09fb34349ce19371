"""What a listing and a worker report, and how a worker's report travels as a line of JSON."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from cifar_ray.errors import CifarRayError, of_exit_code
from cifar_ray.prediction.part import PartFooter


@dataclass(frozen=True, slots=True)
class Listed:
    """How far the listing is, counted from its beginning."""

    shards: int = 0
    """Without a part."""
    images: int = 0
    """Of these shards; the last one of a range counts as full."""
    shards_before: int = 0
    """With a part from an earlier run of the same command."""
    images_before: int = 0
    ended: bool = False

    def plus(self, images: int, done: bool) -> "Listed":
        """Count one more shard."""
        if done:
            return replace(
                self,
                shards_before=self.shards_before + 1,
                images_before=self.images_before + images,
            )
        return replace(self, shards=self.shards + 1, images=self.images + images)


@dataclass(frozen=True, slots=True)
class Progress:
    """A batch is through the model."""

    rows: int
    failed: int
    image_bytes: int

    def plus(self, other: "Progress") -> "Progress":
        """Add up."""
        return Progress(
            self.rows + other.rows, self.failed + other.failed, self.image_bytes + other.image_bytes
        )

    def minus(self, other: "Progress") -> "Progress":
        """Return what came after `other`; below nothing where work was lost."""
        return Progress(
            self.rows - other.rows, self.failed - other.failed, self.image_bytes - other.image_bytes
        )


@dataclass(frozen=True, slots=True)
class ShardDone:
    """A shard's part is committed."""

    shard: str
    footer: PartFooter
    stage_seconds: dict[str, float]
    cpu_seconds: float
    """Of the worker's process since its last shard; at first, since its start."""


@dataclass(frozen=True, slots=True)
class ShardReturned:
    """The store failed, not the images: the shard is not committed, and goes back to the queue."""

    shard: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker has its model and waits for shards."""


@dataclass(frozen=True, slots=True)
class WorkerError:
    """A worker stops because of an error that ends the run."""

    message: str
    exit_code: int

    def as_exception(self) -> CifarRayError:
        """Return the error to raise in the driver."""
        return of_exit_code(self.exit_code, self.message)


Event = Progress | ShardDone | ShardReturned | WorkerReady | WorkerError
_KINDS: dict[str, type[Any]] = {
    "progress": Progress,
    "done": ShardDone,
    "returned": ShardReturned,
    "ready": WorkerReady,
    "error": WorkerError,
}
_NAMES = {event: kind for kind, event in _KINDS.items()}


def to_line(event: Event) -> str:
    """Return an event as a line of JSON."""
    return json.dumps({"kind": _NAMES[type(event)], **asdict(event)}) + "\n"


def from_line(line: str) -> Event:
    """Return the event that a line holds."""
    content: dict[str, Any] = json.loads(line)
    kind = _KINDS[content.pop("kind")]
    if kind is ShardDone:
        content["footer"] = PartFooter(**content["footer"])
    event: Event = kind(**content)
    return event
