"""Metrics of a search."""

from collections import Counter
from collections.abc import Callable
from typing import get_args

from ray.util.metrics import Gauge

from cifar_ray.on_ray.metrics.names import TRIALS
from cifar_ray.training.search.record import Records, State

PLANNED = "planned"
"""The state of a trial that has not begun."""


def metered_trials(on_change: Callable[[Records], None]) -> Callable[[Records], None]:
    """Return a watcher of a search that also shows how many trials are in which state."""
    trials = Gauge(TRIALS, "Trials of a search, by state.", ("state",))

    def show(records: Records) -> None:
        states = Counter[str](record.state for record in records.trials.values())
        states[PLANNED] = records.spec.num_trials - len(records.trials)
        for state in (PLANNED, *get_args(State)):
            trials.set(states[state], {"state": state})
        on_change(records)

    return show
