"""What there is to show of a run between the events of its shards.

Workers and listing tasks write on the board, an actor of its own; the driver looks at it now and
then. Nothing depends on it but the display, and when a run gives up a shard that kills its workers.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ray

from cifar_ray.prediction.events import Listed, Progress

POLL_INTERVAL_S = 0.5
MAX_RESTARTS = 10
NOTHING = Progress(0, 0, 0)


class Board:
    """An actor with what there is to show in between: how far each shard and each range is.

    It holds states, not differences, so that a task that Ray repeats counts once.
    """

    def __init__(self) -> None:
        self.shards: dict[str, Progress] = {}
        self.ranges: dict[int, Listed] = {}
        self.attempts: dict[str, set[str]] = {}

    def begin(self, shard: str, attempt: str) -> int:
        """Note that a worker begins a shard; return how many have died over it before."""
        attempts = self.attempts.setdefault(shard, set())
        attempts.add(attempt)
        return len(attempts) - 1

    def work(self, shard: str, progress: Progress) -> None:
        """Note how far a shard is."""
        self.shards[shard] = progress

    def finish(self, shard: str) -> None:
        """Drop a shard that its worker has done or returned."""
        self.shards.pop(shard, None)
        self.attempts.pop(shard, None)

    def list(self, number: int, listed: Listed) -> None:
        """Note how far a range's listing is."""
        self.ranges[number] = listed

    def look(self) -> tuple[dict[str, Progress], dict[int, Listed]]:
        """Return all of it."""
        return self.shards, self.ranges


def open_board() -> Any:
    """Start the actor; its handle may travel."""
    actor = ray.remote(num_cpus=0, max_restarts=MAX_RESTARTS, max_task_retries=-1)(Board)
    return actor.remote()


@dataclass(slots=True)
class Watch:
    """Reads the board now and then, and tells what is new on it.

    Its sums are exact: what a shard ends with takes the place of what the board said of it.
    """

    board: Any
    num_ranges: int
    shards: dict[str, Progress] = field(default_factory=dict)
    """That workers have in hand."""
    ranges: dict[int, Listed] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    """Shards that ended since the last question: its answer may not know."""
    question: Any = None
    due: float = 0.0

    def look(self) -> Iterator[Listed | Progress]:
        """Ask, or take the answer to an earlier question; never wait."""
        if self.question is not None:
            if ray.wait([self.question], timeout=0)[0]:
                answer, self.question = self.question, None
                yield from self.read(*ray.get(answer))
        elif time.monotonic() >= self.due:
            self.due = time.monotonic() + POLL_INTERVAL_S
            self.settled.clear()
            self.question = self.board.look.remote()

    def wait(self) -> Iterator[Listed | Progress]:
        """Ask, and wait for the answer."""
        self.settled.clear()
        self.question = None
        yield from self.read(*ray.get(self.board.look.remote()))

    def read(
        self, shards: dict[str, Progress], ranges: dict[int, Listed]
    ) -> Iterator[Listed | Progress]:
        """Tell what is new in an answer."""
        if ranges != self.ranges:
            self.ranges |= ranges
            yield self._listed()
        for shard, progress in shards.items():
            if shard not in self.settled:
                yield from self._change(shard, progress)

    def _listed(self) -> Listed:
        ranges = self.ranges.values()
        return Listed(
            shards=sum(listed.shards for listed in ranges),
            images=sum(listed.images for listed in ranges),
            shards_before=sum(listed.shards_before for listed in ranges),
            images_before=sum(listed.images_before for listed in ranges),
            ended=len(ranges) == self.num_ranges and all(listed.ended for listed in ranges),
        )

    def _change(self, shard: str, progress: Progress) -> Iterator[Progress]:
        change = progress.minus(self.shards.get(shard, NOTHING))
        self.shards[shard] = progress
        if change != NOTHING:
            yield change

    def ended(self, shard: str, progress: Progress) -> Iterator[Progress]:
        """Settle a shard that is no longer in hand."""
        yield from self._change(shard, progress)
        del self.shards[shard]
        self.settled.add(shard)
