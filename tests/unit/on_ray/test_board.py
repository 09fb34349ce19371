"""What the driver makes of the board, whose answers may be older than what it knows."""

from importlib.util import find_spec

import pytest

if find_spec("ray") is None:
    pytest.skip("Ray has no package for this platform", allow_module_level=True)

from cifar_ray.on_ray.board import Board, Watch
from cifar_ray.prediction.events import Progress


def test_an_answer_from_before_a_shard_ended_counts_it_once() -> None:
    watch = Watch(board=None, num_ranges=1)
    in_hand, done = Progress(10, 1, 100), Progress(16, 2, 160)
    told = [*watch.read({"a": in_hand}, {}), *watch.ended("a", done)]
    told += watch.read({"a": in_hand, "b": in_hand}, {})
    assert (sum(p.rows for p in told), sum(p.failed for p in told)) == (26, 3)  # type: ignore[union-attr]
    assert set(watch.shards) == {"b"}


def test_a_shard_that_was_begun_and_not_ended_has_cost_a_worker_however_often_ray_asks() -> None:
    board = Board()
    attempts = ("first", "second", "second", "third")
    assert [board.begin("a", attempt) for attempt in attempts] == [0, 1, 1, 2]
    board.finish("a")
    assert board.begin("a", "fourth") == 0
