"""An executor without threads."""

import threading

import pytest

from cifar_ray.errors import StoreUnavailable
from cifar_ray.prediction.in_this_thread import InThisThread


def test_what_is_submitted_runs_at_once_and_here() -> None:
    ran = []

    def add(number: int, *, to: int) -> int:
        ran.append(threading.current_thread())
        return number + to

    future = InThisThread().submit(add, 2, to=3)
    assert ran == [threading.current_thread()]
    assert future.result() == 5


def test_an_exception_is_raised_where_the_result_is_asked_for() -> None:
    def fail() -> None:
        raise StoreUnavailable("gone")

    future = InThisThread().submit(fail)
    with pytest.raises(StoreUnavailable, match="gone"):
        future.result()
