import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import override
from cifar_ray.errors import InputError, StoreUnavailable, Unfinished
from cifar_ray.training.search.budget import EpochBudget
from cifar_ray.training.search.opening import hold_search, open_search, read_search
from cifar_ray.training.search.record import Records
from tests.unit.training.search.recorded import ended, row, spec_of, write_rows


def test_a_trial_is_finished_stopped_or_failed_by_what_its_worker_left(tmp_path: Path) -> None:
    records = Records.load(spec_of(tmp_path))
    ended(records, 0, 0.01, [0.3, 0.5, 0.6, 0.55])
    ended(records, 1, 0.02, [0.2])
    records.begin(2, records.trials[0].parameters)
    write_rows(records, 2, [0.9])
    records.run.trial(2).failure.write_text(json.dumps({"error": "The loss is no longer finite."}))
    records.end(2)
    assert [records.trials[n].state for n in range(3)] == ["finished", "stopped", "failed"]
    assert records.trials[2].error == "The loss is no longer finite."
    best = records.best()
    assert best is not None
    assert (best.number, best.accuracy) == (0, 0.6)


def test_a_trial_that_its_recipes_own_patience_ends_is_finished(tmp_path: Path) -> None:
    config = override(get_recipe("cnn-bn"), ["epochs=8", "early_stopping.patience=2"])
    records = Records.load(spec_of(tmp_path, config=config))
    ended(records, 0, 0.01, [0.3, 0.5, 0.4, 0.4])
    ended(records, 1, 0.01, [0.3, 0.5, 0.4])
    ended(records, 2, 0.01, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert [records.trials[n].state for n in range(3)] == ["finished", "stopped", "finished"]


def test_a_trial_that_the_searchs_epochs_did_not_suffice_for_may_be_the_best(
    tmp_path: Path,
) -> None:
    records = Records.load(spec_of(tmp_path, epoch_budget=6))
    ended(records, 0, 0.01, [0.3, 0.5, 0.6, 0.55])
    ended(records, 1, 0.02, [0.2])
    for number in (2, 3):
        budget = EpochBudget.of(records.spec, number)
        while budget.take():
            budget.settle()
    ended(records, 2, 0.03, [0.7])
    ended(records, 3, 0.03, [])
    states = ["finished", "stopped", "budget", "budget"]
    again = Records.load(records.spec)
    for now in (records, again):
        assert [now.trials[n].state for n in range(4)] == states
        assert now.epochs_trained == 6
        best = now.best()
        assert best is not None
        assert best.number == 2


def test_rows_that_are_told_again_leave_the_later_ones(tmp_path: Path) -> None:
    records = Records.load(spec_of(tmp_path))
    records.begin(0, {"optimizer.learning_rate": 0.01, "batch_size": 32, "augment.flip": "none"})
    for epoch in (0, 1, 0):
        records.add_row(0, row(epoch, 0.5 + epoch / 10))
    assert [r["epoch"] for r in records.trials[0].history] == [0, 1]


def test_a_trial_whose_store_is_gone_has_not_ended(tmp_path: Path) -> None:
    records = Records.load(spec_of(tmp_path))
    ended(records, 0, 0.01, [0.3, 0.5, 0.6, 0.55])
    records.begin(1, records.trials[0].parameters)
    failure = {"error": "The endpoint does not answer.", "exit_code": StoreUnavailable.exit_code}
    records.run.trial(1).failure.write_text(json.dumps(failure))
    with pytest.raises(Unfinished, match="does not answer"):
        records.end(1)
    again = Records.load(records.spec)
    assert [again.trials[n].has_ended for n in (0, 1)] == [True, False]


def test_rows_of_ended_trials_are_the_same_after_everything_is_read_again(tmp_path: Path) -> None:
    records = Records.load(spec_of(tmp_path))
    ended(records, 0, 0.01, [0.3, 0.5, 0.6, 0.55])
    records.begin(1, records.trials[0].parameters)
    records.write_parquet()
    before = pq.read_table(records.run.trials).to_pylist()
    write_rows(records, 1, [0.2, 0.3])
    again = Records.load(spec_of(tmp_path))
    assert again.trials[1].history == (row(0, 0.2), row(1, 0.3))
    assert not again.trials[1].has_ended
    again.write_parquet()
    assert pq.read_table(records.run.trials).to_pylist()[0] == before[0]
    assert before[0]["parameter.optimizer.learning_rate"] == 0.01
    assert before[0]["best_epoch"] == 2
    assert (before[0]["epochs"], before[0]["epochs_planned"], before[0]["seconds"]) == (4, 4, 40.0)


def test_a_population_member_pays_for_its_own_epochs_alone(tmp_path: Path) -> None:
    records = Records.load(spec_of(tmp_path, search="pbt", scheduler="none"))
    for number, accuracy in ((0, 0.6), (1, 0.2)):
        parameters = {"optimizer.learning_rate": 0.01, "batch_size": 32, "augment.flip": "none"}
        records.begin(number, parameters)
        records.add_row(number, row(0, accuracy))
    after = {**records.trials[0].parameters, "batch_size": 64}
    records.exploit(1, 0, 1, after)
    records.add_row(1, row(1, 0.7))
    trial = records.trials[1]
    assert [r["validation_accuracy"] for r in trial.history] == [0.6, 0.7]
    assert trial.seconds == 20.0
    assert trial.epochs_trained == 2, "one was given up"
    assert (trial.exploits[0].donor, trial.exploits[0].epoch) == (0, 1)
    assert trial.parameters == after
    write_rows(records, 1, [0.6, 0.7, 0.8, 0.8])
    assert Records.load(records.spec).trials[1].exploits == trial.exploits


def test_an_exploit_that_a_kill_kept_from_its_heir_is_undone(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, search="pbt", scheduler="none")
    records = Records.load(spec)
    parameters = {"optimizer.learning_rate": 0.01, "batch_size": 32, "augment.flip": "none"}
    for number, accuracies in ((0, [0.6, 0.7]), (1, [0.2, 0.3, 0.4])):
        records.begin(number, parameters)
        write_rows(records, number, accuracies)
        for epoch, accuracy in enumerate(accuracies):
            records.add_row(number, row(epoch, accuracy))
    records.exploit(1, 0, 2, {**parameters, "batch_size": 64})
    waiting = Records.load(spec).trials[1]
    assert (waiting.parameters, waiting.exploits) == (parameters, ())
    assert [r["validation_accuracy"] for r in waiting.history] == [0.2, 0.3, 0.4]
    assert waiting.seconds == 30.0
    write_rows(records, 1, [0.6, 0.7, 0.8])
    heir = Records.load(spec).trials[1]
    assert (heir.parameters["batch_size"], len(heir.exploits)) == (64, 1)
    assert heir.seconds == 40.0
    assert heir.epochs_trained == 4


def test_the_same_search_goes_on_and_another_one_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "run")
    open_search(spec)
    open_search(spec)
    assert read_search(tmp_path / "run") == spec
    with pytest.raises(InputError, match="num_trials: there 16, now 8"):
        open_search(spec.model_copy(update={"num_trials": 8}))
    # Of a later version, in which the recipe tells what it reached.
    told = spec.config.model_copy(update={"expected_accuracy": 0.123, "minutes": 4.5})
    open_search(spec.model_copy(update={"config": told}))
    with pytest.raises(InputError, match="config: there"):
        open_search(spec.model_copy(update={"config": told.model_copy(update={"seed": 9})}))


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="is not empty"):
        open_search(spec_of(tmp_path))
    with pytest.raises(InputError, match="holds no search"):
        read_search(tmp_path)


def test_a_moved_folder_goes_on_where_it_is(tmp_path: Path) -> None:
    open_search(spec_of(tmp_path / "run"))
    (tmp_path / "run").rename(tmp_path / "moved")
    assert read_search(tmp_path / "moved").run == str(tmp_path / "moved")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owner here")
def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_search(spec_of(tmp_path / "run"))
    somebody = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    with pytest.raises(InputError, match="belongs to another user"):
        read_search(tmp_path / "run")


def test_two_processes_cannot_search_in_one_folder(tmp_path: Path) -> None:
    run = Records.load(spec_of(tmp_path)).run
    with (
        hold_search(run),
        pytest.raises(InputError, match="Another process"),
        hold_search(run),
    ):
        pass


def test_an_unknown_network_is_refused_before_anything_starts(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "run")
    config = spec.config.model_copy(update={"network": "cnn-122"})
    with pytest.raises(InputError, match="cnn-122k"):
        open_search(spec.model_copy(update={"config": config}))
    assert not (tmp_path / "run").exists()
