"""Reading the next images of a store that is slow to answer, while this one is decoded."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from functools import partial

from cifar_ray.prediction.sources import Entry, Fetcher

MAX_BYTES_AHEAD = 64 * 2**20
"""Of images that were read, or are being read, and wait to be decoded; one may be larger."""

Read = Callable[[], bytes]
"""Gives an image's bytes, or raises what `Fetcher.fetch` does."""


def reads(fetcher: Fetcher, entries: list[Entry]) -> Iterator[Read]:
    """Yield a way to read each image, in order; nothing is read before it is asked for."""
    return (partial(fetcher.fetch, entry) for entry in entries)


def reads_ahead(
    fetcher: Fetcher, entries: list[Entry], threads: Executor, num_ahead: int, max_bytes: int
) -> Iterator[Read]:
    """Yield the same, with the next `num_ahead` images under way in `threads`."""
    waiting: deque[tuple[Entry, Future[bytes]]] = deque()
    ahead_bytes = 0
    try:
        for entry in entries:
            while waiting and (
                len(waiting) >= num_ahead or ahead_bytes + entry.size_bytes > max_bytes
            ):
                first, future = waiting.popleft()
                yield future.result
                ahead_bytes -= first.size_bytes
            waiting.append((entry, threads.submit(fetcher.fetch, entry)))
            ahead_bytes += entry.size_bytes
        while waiting:
            yield waiting.popleft()[1].result
    finally:
        for _, future in waiting:
            future.cancel()
