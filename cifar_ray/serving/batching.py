"""Puts images of many requests into batches of a fixed size, without making any of them wait.

An image that comes while a core is free starts at once, alone. While all are busy, images gather,
and the next batch takes what is there; so batches grow with the load by themselves. A batch is the
largest loaded size that is not larger than a free core's share of what waits: none is padded.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cifar_ray.models.backends import Backend, Outputs
from cifar_ray.serving.work import Work

Logits = NDArray[np.float32]


@dataclass(slots=True)
class _Waiting:
    image: NDArray[np.uint8]
    logits: "asyncio.Future[Logits]"


class Batcher:
    """One model in one event loop. `backends` are the same model for batches of growing size."""

    def __init__(
        self, backends: Sequence[Backend], batch_done: Callable[[int], None], work: Work
    ) -> None:
        self._backends = {backend.execution.batch_size: backend for backend in backends}
        self._parallel = backends[0].num_parallel
        self._threads = ThreadPoolExecutor(self._parallel, "model")
        self._waiting: deque[_Waiting] = deque()
        self._running = 0
        self._batch_done = batch_done
        self._work = work
        self.fault: BaseException | None = None
        """What the last batch failed with: the model itself is broken, no image is."""

    async def logits(self, image: NDArray[np.uint8]) -> Logits:
        """Return the C logits of an image (S×S×3). An exception is the backend's own."""
        item = _Waiting(image, asyncio.get_running_loop().create_future())
        self._waiting.append(item)
        self._start()
        return await item.logits

    def _start(self) -> None:
        while self._running < self._parallel:
            items = self._take()
            if not items:
                return
            self._running += 1
            images = np.stack([item.image for item in items])
            loop = asyncio.get_running_loop()
            run = loop.run_in_executor(self._threads, self._run, images)
            run.add_done_callback(partial(self._finish, items))

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        with self._work.in_hand():
            return self._backends[len(images)].run(images)

    def _take(self) -> list[_Waiting]:
        # Requests that were given up need no core.
        self._waiting = deque(item for item in self._waiting if not item.logits.done())
        if not self._waiting:
            return []
        share = -(-len(self._waiting) // (self._parallel - self._running))
        size = max(size for size in self._backends if size <= share)
        return [self._waiting.popleft() for _ in range(size)]

    def _finish(self, items: list[_Waiting], done: "asyncio.Future[Outputs]") -> None:
        self._running -= 1
        self.fault = done.exception()
        for number, item in enumerate(items):
            if item.logits.done():
                continue
            if self.fault is not None:
                item.logits.set_exception(self.fault)
            else:
                item.logits.set_result(done.result().logits[number])
        self._batch_done(len(items))
        self._start()
