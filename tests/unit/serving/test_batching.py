"""Batches grow with the load, and no image waits for company."""

import asyncio
import threading

import numpy as np
import pytest

from cifar_ray.config.execution import Execution
from cifar_ray.models.backends import Backend, Outputs, Pending
from cifar_ray.serving.batching import Batcher
from cifar_ray.serving.work import Work


class Echo(Backend):
    """Gives each image's first value as its logit, when it is let; fails for the value 255."""

    def __init__(self, batch_size: int, parallel: int, open_: threading.Event) -> None:
        self.execution = Execution.model_construct(batch_size=batch_size)
        self.num_parallel = parallel
        self.open = open_

    def submit(self, images: np.ndarray) -> Pending:
        raise NotImplementedError

    def run(self, images: np.ndarray) -> Outputs:
        assert len(images) == self.execution.batch_size
        self.open.wait()
        values = images[:, 0, 0, :1].astype(np.float32)
        if (values == 255).any():
            raise RuntimeError("the model broke")
        return Outputs(values, None)


def image(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


def run(number: int, parallel: int = 1, cancel: int = 0) -> tuple[list[int], list[int]]:
    """Ask for images at once while the first batch is held up; return answers and batch sizes."""
    sizes: list[int] = []
    opened = threading.Event()
    echoes = [Echo(size, parallel, opened) for size in (1, 4, 16)]
    batcher = Batcher(echoes, sizes.append, Work())

    async def ask() -> list[int]:
        tasks = [asyncio.ensure_future(batcher.logits(image(value))) for value in range(number)]
        await asyncio.sleep(0)  # all have asked
        for task in tasks[number - cancel :]:
            task.cancel()
        opened.set()
        return [int((await task)[0]) for task in tasks[: number - cancel]]

    return asyncio.run(ask()), sizes


@pytest.mark.parametrize(
    ("number", "sizes"),
    [(1, [1]), (2, [1, 1]), (5, [1, 4]), (17, [1, 16]), (24, [1, 16, 4, 1, 1, 1])],
)
def test_what_waits_goes_together_and_nobody_gets_another_s_answer(
    number: int, sizes: list[int]
) -> None:
    answers, batches = run(number)
    assert answers == list(range(number))
    assert batches == sizes


def test_free_cores_share_what_waits() -> None:
    answers, batches = run(10, parallel=2)
    assert answers == list(range(10))
    assert sorted(batches) == [1, 1, 4, 4]


def test_requests_that_were_given_up_are_not_computed() -> None:
    answers, batches = run(9, cancel=8)
    assert answers == [0]
    assert batches == [1]


def test_a_broken_model_is_told_to_those_in_the_batch_and_known_until_it_answers_again() -> None:
    opened = threading.Event()
    opened.set()
    batcher = Batcher([Echo(1, 1, opened)], lambda size: None, Work())

    async def ask(value: int) -> int:
        return int((await batcher.logits(image(value)))[0])

    with pytest.raises(RuntimeError, match="broke"):
        asyncio.run(ask(255))
    assert batcher.fault is not None
    assert asyncio.run(ask(7)) == 7
    assert batcher.fault is None


def test_a_batch_that_does_not_end_is_seen_from_outside() -> None:
    opened, work = threading.Event(), Work()
    batcher = Batcher([Echo(1, 1, opened)], lambda size: None, work)

    async def ask() -> None:
        asked = asyncio.ensure_future(batcher.logits(image(7)))
        while not work.longest_s:
            await asyncio.sleep(0)
        opened.set()
        await asked

    asyncio.run(ask())
    assert work.longest_s == 0
