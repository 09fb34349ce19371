import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from cifar_ray.runs import SearchRun
from cifar_ray.training.search.budget import EpochBudget

LIMIT = 25


def budget_of(folder: Path, trial: int = 0, limit: int | None = LIMIT) -> EpochBudget:
    return EpochBudget(SearchRun(folder), trial, limit)


def take_all(budget: EpochBudget) -> int:
    """Train as a worker does, until there is no epoch left."""
    epochs = 0
    while budget.take():
        budget.settle()
        epochs += 1
    return epochs


def test_processes_side_by_side_take_as_many_epochs_as_there_are(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        taken = list(pool.map(take_all, [budget_of(tmp_path, trial) for trial in range(4)]))
    assert sum(taken) == LIMIT
    begun = json.loads(budget_of(tmp_path).run.epochs.read_text())
    assert [begun[f"{trial:04d}"]["begun"] for trial in range(4)] == taken
    assert all(budget_of(tmp_path, trial).was_refused for trial in range(4))


def test_an_epoch_that_a_kill_interrupted_is_not_counted_twice(tmp_path: Path) -> None:
    first = budget_of(tmp_path, 0, 2)
    assert first.take()
    assert first.take(), "it goes on with the epoch that it had begun"
    first.settle()
    assert budget_of(tmp_path, 1, 2).take()
    assert not first.take()
    assert first.was_refused
    assert not budget_of(tmp_path, 1, 2).was_refused
    assert budget_of(tmp_path, 1, 2).take(), "the last epoch is still this one's"


def test_without_a_limit_nothing_is_written(tmp_path: Path) -> None:
    budget = replace(budget_of(tmp_path), limit=None)
    assert all(budget.take() for _ in range(3))
    budget.settle()
    assert not budget.was_refused
    assert not list(tmp_path.iterdir())
