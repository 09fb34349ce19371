"""What Tune does with trials, into the search's own record, and to whoever watches."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import ray
from ray.tune import Callback

from cifar_ray.errors import CifarRayError, InputError, Unfinished
from cifar_ray.on_ray.tuning.trainable import EPOCHS, TRIAL
from cifar_ray.training.loop import EpochRow
from cifar_ray.training.search.record import Records, TrialRecord

ROW = [field.name for field in fields(EpochRow)]
KILLED = (
    "The process that trained it ended each time without a word: killed, perhaps because the "
    "machine was out of memory."
)


class RecordingCallback(Callback):
    """Writes the record; a trial's row is complete before anybody learns of its end."""

    def __init__(
        self,
        records: Records,
        learn: Callable[[TrialRecord], None],
        on_change: Callable[[Records], None],
    ) -> None:
        self.records = records
        self.learn = learn
        self.on_change = on_change
        self.fault: CifarRayError | None = None

    def __reduce__(self) -> tuple[type[Callback], tuple[()]]:
        """Leave nothing of ours in what Tune pickles and nobody reads."""
        return Callback, ()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note its parameters."""
        self.records.begin(_number(trial), trial.config[TRIAL]["parameters"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Note an epoch, which a population's scheduler has noted itself."""
        if self.records.spec.search != "pbt":
            note_epoch(self.records, trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial has ended: whole, stopped, or with the failure of its worker."""
        self._end(trial, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note that a trial's process died, again and again."""
        self._end(trial, death(trial.get_error()))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Show how far the search is, or end it: Tune would only log what is raised elsewhere."""
        if self.fault is not None:
            raise self.fault
        self.on_change(self.records)

    def _end(self, trial: Any, error: str | None) -> None:
        number = _number(trial)
        try:
            self.records.end(number, error)
        except (InputError, Unfinished) as fault:
            self.fault = fault
        else:
            self.learn(self.records.trials[number])


def note_epoch(records: Records, trial: Any, result: dict[str, Any]) -> None:
    """Add a result's row to the record, if it is of an epoch."""
    if EPOCHS in result:
        # Epochs of mixed images have no training accuracy.
        records.add_row(_number(trial), {name: result[name] for name in ROW if name in result})


def death(error: Exception | None) -> str:
    """Return why a trial's process gave no result."""
    if isinstance(error, ray.exceptions.RayActorError):
        return KILLED
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return f"Out of memory. {str(error).strip().splitlines()[0]}"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}" if error else KILLED


def _number(trial: Any) -> int:
    return int(trial.custom_trial_name)
