"""Work on many shards side by side, with no more of them in memory than are being worked on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cifar_ray.config.machine import usable_cores

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

THREADS_A_CORE = 2
"""Reading waits for the store as often as digests keep a core busy."""


def in_parallel(
    function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[tuple[_Item, _Result]]:
    """Yield each item with its result, in order; an exception is raised in its item's place."""
    threads = THREADS_A_CORE * usable_cores()
    waiting: deque[tuple[_Item, Future[_Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > 2 * threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
