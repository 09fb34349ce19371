"""Why a training ends, told by the worker that found it, so that the others do not wait for it.

An error of ours may be one worker's alone: a disk that is full where rank 0 writes, DATA that is
not on a node. Returned, it would leave the others in a sum that is never completed; raised, Ray
Train would end them, but start all again to fail in the same way. So the worker writes its error
down in an actor and raises it, and the workers that are started again return it at once.
"""

from collections.abc import Callable
from typing import Any

import ray
import ray.train
from ray.train import TrainingFailedError

from cifar_ray.errors import CifarRayError, of_exit_code

Outcome = dict[str, Any]
"""What a training returns: its metrics; or `error` and `exit_code`."""


class Verdict:
    """An actor that keeps the first error of a training."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None

    def tell(self, outcome: Outcome) -> None:
        """Write an error down, unless there is one."""
        self.outcome = self.outcome or outcome

    def read(self) -> Outcome | None:
        """Return the error, if there is one."""
        return self.outcome


def open_verdict() -> Any:
    """Start the actor; its handle may travel."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Verdict).remote()


def under_verdict(verdict: Any, train: Callable[[], Outcome]) -> Outcome:
    """Train as a worker of a group, and return what came of it; raise to end the group."""
    earlier: Outcome | None = ray.get(verdict.read.remote())
    if earlier is not None:
        return earlier
    try:
        return train()
    except CifarRayError as error:
        outcome = {"error": str(error), "exit_code": error.exit_code}
        if ray.train.get_context().get_world_size() == 1:
            return outcome
        ray.get(verdict.tell.remote(outcome))
        raise


def outcome_of(verdict: Any, fit: Callable[[], ray.train.Result]) -> Outcome:
    """Fit a trainer whose workers are under the verdict, and return what rank 0 returned.

    Raises the workers' own `CifarRayError`s, and Ray's `TrainingFailedError` for any other error.
    """
    try:
        outcome: Outcome = fit().return_value  # type: ignore[attr-defined]
    except TrainingFailedError:
        # Workers had died before, and Ray does not start them once more to hear the verdict.
        told: Outcome | None = ray.get(verdict.read.remote())
        if told is None:
            raise
        outcome = told
    if "exit_code" in outcome:
        raise of_exit_code(outcome["exit_code"], outcome["error"])
    return outcome
