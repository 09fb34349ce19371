"""How many images a user may send."""

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_USERS = 10_000
"""Remembered; the one longest unseen is forgotten, and starts with a full allowance again."""


class Allowance:
    """A bucket of `per_minute` images for each user, filled evenly (token bucket)."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[int, tuple[float, float]] = OrderedDict()

    def take(self, user: int, images: int = 1) -> float:
        """Take images out of a user's bucket; return 0, or the seconds until there are enough.

        More than the bucket ever holds passes when it is full.
        """
        now = self._clock()
        level, seen = self._buckets.pop(user, (float(self._per_minute), now))
        level = min(self._per_minute, level + (now - seen) * self._per_minute / 60)
        wanted = min(images, self._per_minute)
        enough = level >= wanted
        self._buckets[user] = (level - wanted if enough else level, now)
        if len(self._buckets) > MAX_USERS:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (wanted - level) * 60 / self._per_minute
