"""Populations and early stopping: Tune's schedulers as its controller calls them, without a Ray."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if find_spec("ray") is None:
    pytest.skip("Ray has no package for this platform", allow_module_level=True)

from ray.tune import Checkpoint
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from cifar_ray.on_ray.tuning.events import RecordingCallback
from cifar_ray.on_ray.tuning.schedulers import Population, make_scheduler
from cifar_ray.on_ray.tuning.trainable import EPOCHS, trial_config, trial_name
from cifar_ray.training.search.record import Records
from tests.unit.training.search.recorded import ended, row, spec_of

PARAMETERS = {"optimizer.learning_rate": 0.01, "batch_size": 32, "augment.flip": "none"}


class Controller(SimpleNamespace):
    """What Tune's own does for a population, each checkpoint being there at once."""

    def get_trials(self) -> list[Trial]:
        return self.trials

    def _schedule_trial_save(self, trial: Trial, result: dict[str, Any]) -> Checkpoint:
        return Checkpoint(f"/checkpoint-of-{trial.custom_trial_name}")

    def pause_trial(self, trial: Trial, should_checkpoint: bool) -> None:
        trial.set_status(Trial.PAUSED)


def trial_of(number: int) -> Trial:
    trial = Trial("member", config=trial_config(number, PARAMETERS), stub=True)
    trial.custom_trial_name = trial_name(trial)
    trial.set_status(Trial.RUNNING)
    return trial


def test_an_exploit_knows_the_last_row_given_up_and_the_checkpoint_taken_over(
    tmp_path: Path,
) -> None:
    records = Records.load(spec_of(tmp_path, search="pbt", scheduler="none", num_trials=2))
    # Every second of ten epochs is one for exploits.
    config = records.spec.config.model_copy(update={"epochs": 10})
    records.spec = records.spec.model_copy(update={"config": config})
    trials = [trial_of(0), trial_of(1)]
    controller = Controller(trials=trials, search_alg=None)
    population = Population(records)
    callback = RecordingCallback(records, lambda record: None, lambda records: None)
    for number, trial in enumerate(trials):
        records.begin(number, PARAMETERS)
        population.on_trial_add(controller, trial)

    def report(number: int, epoch: int, accuracy: float) -> None:
        """Do as Tune's controller does: the scheduler first, and then the callbacks."""
        result = {**row(epoch, accuracy), EPOCHS: epoch + 1}
        population.on_trial_result(controller, trials[number], result)
        callback.on_trial_result(0, trials, trials[number], result)

    for epoch in (0, 1):
        report(1, epoch, 0.1 + epoch / 100)
    for epoch in (0, 1, 2):
        report(0, epoch, 0.5 + epoch / 100)
    for epoch in (2, 3):
        report(1, epoch, 0.2 + epoch / 100)
    assert trials[1].status == Trial.PAUSED
    heir = records.trials[1]
    (exploit,) = heir.exploits
    assert (exploit.epoch, exploit.donor, exploit.donor_epoch) == (4, 0, 2)
    assert heir.history == records.trials[0].history[:2]
    assert len(records.trials[0].history) == 3
    assert heir.seconds == 40.0, "four epochs of its own, and none of its donor's"
    report(1, 2, 0.6)
    assert heir.history == records.trials[1].history[:2]
    assert records.trials[1].seconds == 50.0


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_resumed_search_stops_a_trial_by_what_ended_before(
    scheduler: str, tmp_path: Path
) -> None:
    def decision(records: Records, accuracy: float) -> str:
        rule = make_scheduler(records)
        trial = trial_of(9)
        rule.on_trial_add(None, trial)
        return rule.on_trial_result(None, trial, {**row(0, accuracy), EPOCHS: 1})

    before = Records.load(spec_of(tmp_path, scheduler=scheduler))
    assert decision(before, 0.2) == TrialScheduler.CONTINUE
    for number in range(4):
        ended(before, number, 0.01, [0.5, 0.6, 0.7, 0.8])
    # A trial without an epoch says nothing.
    before.begin(4, PARAMETERS)
    before.end(4, "Out of memory.")
    assert decision(before, 0.2) == TrialScheduler.STOP
    assert decision(before, 0.9) == TrialScheduler.CONTINUE


def test_the_median_rule_stands_a_trial_that_ends_without_a_result(tmp_path: Path) -> None:
    rule = make_scheduler(Records.load(spec_of(tmp_path, scheduler="median")))
    trial = trial_of(0)
    rule.on_trial_add(None, trial)
    rule.on_trial_complete(None, trial, {})
    other = trial_of(1)
    rule.on_trial_add(None, other)
    for epoch in (0, 1):
        result = {**row(epoch, 0.5), EPOCHS: epoch + 1}
        assert rule.on_trial_result(None, other, result) == TrialScheduler.CONTINUE
