"""Which trials go on: early stopping that remembers earlier runs, and populations.

ASHA: L. Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020).
Median: D. Golovin et al., "Google Vizier: A Service for Black-Box Optimization" (KDD 2017).
PBT: M. Jaderberg et al., "Population Based Training of Neural Networks" (arXiv:1711.09846).
"""

import math
from dataclasses import dataclass
from random import Random
from typing import Any

from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from cifar_ray.config.search import SearchSpec
from cifar_ray.on_ray.tuning.events import note_epoch
from cifar_ray.on_ray.tuning.trainable import EPOCHS, METRIC, TRIAL
from cifar_ray.training.search.record import Records

REDUCTION_FACTOR = 4
"""ASHA stops three of four trials at each rung, as in its paper."""
NUM_RUNGS_BELOW_END = 2
MIN_TRIALS_FOR_MEDIAN = 3
PERTURBATIONS = 5
"""Times in a training at which a population's worst members take over its best."""


@dataclass(frozen=True, slots=True)
class EndedTrial:
    """Stands for a trial of an earlier run, of which Tune knows nothing."""

    trial_id: str


def make_scheduler(records: Records) -> TrialScheduler:
    """Return the search's scheduler, which knows the trials that have ended before."""
    spec = records.spec
    if spec.search == "pbt":
        return Population(records)
    if spec.scheduler == "none":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    scheduler = _asha(spec) if spec.scheduler == "asha" else _median(spec)
    for record in records.trials.values():
        if record.has_ended and record.history:
            _tell(scheduler, EndedTrial(f"ended-{record.number}"), record.history)
    return scheduler


def grace_epochs(spec: SearchSpec) -> int:
    """Return the epochs that every trial is given."""
    whole: int = REDUCTION_FACTOR**NUM_RUNGS_BELOW_END
    return max(1, round(spec.max_epochs / whole))


def _asha(spec: SearchSpec) -> ASHAScheduler:
    return ASHAScheduler(
        time_attr=EPOCHS,
        metric=METRIC,
        mode="max",
        max_t=spec.max_epochs,
        grace_period=grace_epochs(spec),
        reduction_factor=REDUCTION_FACTOR,
    )


class _Median(MedianStoppingRule):
    """Tune's, which trips over trials that end without a result."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Take the last result, if there is one."""
        if EPOCHS in result:
            super().on_trial_complete(tune_controller, trial, result)


def _median(spec: SearchSpec) -> MedianStoppingRule:
    return _Median(
        time_attr=EPOCHS,
        metric=METRIC,
        mode="max",
        grace_period=grace_epochs(spec),
        min_samples_required=MIN_TRIALS_FOR_MEDIAN,
        # Never pause a trial to give its time to another.
        min_time_slice=math.inf,  # type: ignore[arg-type]
    )


def _tell(scheduler: Any, trial: EndedTrial, history: tuple[dict[str, float], ...]) -> None:
    """Let a scheduler see what it would have seen; it has no say in how the trial ended."""
    scheduler.on_trial_add(None, trial)
    result: dict[str, float] = {}
    for row in history:
        result = {**row, EPOCHS: int(row["epoch"]) + 1}
        scheduler.on_trial_result(None, trial, result)
    scheduler.on_trial_complete(None, trial, result)


class Population(PopulationBasedTraining):
    """Tune's, exploring as the space says, and writing its lineage into the record."""

    def __init__(self, records: Records) -> None:
        spec = records.spec
        self.records = records
        rng = Random(f"{spec.seed} explore {len(records.trials)}")

        def explore(config: dict[str, Any]) -> dict[str, Any]:
            trial = config[TRIAL]
            after = spec.space.explore(trial["parameters"], rng)
            return {**config, TRIAL: {**trial, "parameters": after}}

        super().__init__(
            time_attr=EPOCHS,
            metric=METRIC,
            mode="max",
            perturbation_interval=max(1, round(spec.max_epochs / PERTURBATIONS)),
            custom_explore_fn=explore,
            log_config=False,
        )

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Note the epoch before Tune's callbacks hear of it: the trial may be given up at once."""
        # A trial's end repeats its last result, which an exploit may have replaced since.
        if not result.get("done"):
            note_epoch(self.records, trial, result)
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return decision

    def _exploit(self, tune_controller: Any, trial: Any, trial_to_clone: Any) -> None:
        # A hook of Tune's own, and the only place where it says who takes over whom.
        super()._exploit(tune_controller, trial, trial_to_clone)
        of_donor: Any = self._trial_state[trial_to_clone]
        self.records.exploit(
            int(trial.custom_trial_name),
            int(trial_to_clone.custom_trial_name),
            # Of the checkpoint; the donor may have reported later epochs.
            of_donor.last_result[EPOCHS],
            trial.config[TRIAL]["parameters"],
        )
