"""Since when decoders and models are at work: nothing in a process can stop one that hangs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Work:
    """What the threads of a replica have in hand, one piece each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[int, float] = {}

    @contextmanager
    def in_hand(self) -> Iterator[None]:
        """Count what the calling thread does within the block."""
        thread = threading.get_ident()
        with self._lock:
            self._since[thread] = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                del self._since[thread]

    @property
    def longest_s(self) -> float:
        """Seconds that the oldest piece has taken so far; 0 without any."""
        with self._lock:
            now = time.monotonic()
            return now - min(self._since.values(), default=now)
