"""What the driver makes of the board, whose answers may be older than what it knows."""

from cifar_ray.on_ray.board import Watch
from cifar_ray.prediction.events import Progress


def test_an_answer_from_before_a_shard_ended_counts_it_once() -> None:
    watch = Watch(board=None, num_ranges=1)
    in_hand, done = Progress(10, 1, 100), Progress(16, 2, 160)
    told = [*watch.read({"a": in_hand}, {}), *watch.ended("a", done)]
    told += watch.read({"a": in_hand, "b": in_hand}, {})
    assert (sum(p.rows for p in told), sum(p.failed for p in told)) == (26, 3)  # type: ignore[union-attr]
    assert set(watch.shards) == {"b"}
