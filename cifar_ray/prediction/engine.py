"""What an engine is: it takes shards from a listing that may still run, and reports what is done.

`StorePatience` is the part that every engine shares: which shards come back because the store
failed, when to try them again, and when to give up.
"""

import heapq
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Protocol

from cifar_ray.errors import StoreUnavailable
from cifar_ray.prediction.events import Listed, Progress, ShardDone
from cifar_ray.prediction.shards import RunShards
from cifar_ray.runs import ShardName

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 30.0
MAX_DEATHS = 3
"""Workers that a shard may take with it before the run ends."""


def retry_delay_s(failures: int, timeout_s: float) -> float:
    """Return how long to wait after so many failures of the store in a row."""
    delay_s: float = min(FIRST_DELAY_S * 2 ** min(failures, 10), LONGEST_DELAY_S)
    return min(delay_s, max(0.1, timeout_s / 4))


@dataclass(frozen=True, slots=True)
class Paused:
    """The store fails; the engine waits before it tries again."""

    reason: str
    delay_s: float


RunEvent = Listed | Progress | ShardDone | Paused


class Engine(Protocol):
    """Labels shards; each that it reports done has its part."""

    def run(self, shards: RunShards) -> Generator[RunEvent, None, None]:
        """Label every shard that has no part, report as it goes, and return when all are done.

        Closing the generator stops the workers. It may run again, on what is left.
        """


@dataclass(slots=True)
class StorePatience:
    """Shards that the store failed to give: when to try each again, and when to give up."""

    timeout_s: float
    waiting: list[tuple[float, ShardName]] = field(default_factory=list)
    failures: int = 0
    failing_since: float | None = None

    def returned(self, shard: ShardName, reason: str) -> Paused:
        """Put a shard back; `StoreUnavailable` when nothing has worked for too long."""
        now = time.monotonic()
        if self.failing_since is None:
            self.failing_since = now
        if now - self.failing_since > self.timeout_s:
            raise StoreUnavailable(
                f"{reason} Nothing could be read for {now - self.failing_since:.0f} s; "
                "no image is blamed. Give the same command again once the store is back."
            )
        delay_s = retry_delay_s(self.failures, self.timeout_s)
        self.failures += 1
        heapq.heappush(self.waiting, (now + delay_s, shard))
        return Paused(reason, delay_s)

    def succeeded(self) -> None:
        """Note that the store gave a shard."""
        self.failures, self.failing_since = 0, None

    def due(self) -> ShardName | None:
        """Return a shard whose time has come, if any."""
        if self.waiting and self.waiting[0][0] <= time.monotonic():
            return heapq.heappop(self.waiting)[1]
        return None

    def seconds_to_next(self) -> float | None:
        """Return how long until a shard is due; None if none waits."""
        if not self.waiting:
            return None
        return max(0.0, self.waiting[0][0] - time.monotonic())

    def take_all(self) -> list[ShardName]:
        """Return every shard that waits, due or not, in order."""
        shards = sorted(shard for _, shard in self.waiting)
        self.waiting.clear()
        return shards
