"""`tune` as a user gives it, but for the search itself, which needs a Ray."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.search import planned
from cifar_ray.config.spaces import Parameters, apply, get_space
from cifar_ray.config.training import TrainingSpec, override
from cifar_ray.training.loop import Ranks
from cifar_ray.training.search.budget import EpochBudget
from cifar_ray.training.search.opening import open_search
from cifar_ray.training.search.record import Records
from cifar_ray.training.search.trial import take_over, train_trial
from tests.drawing import draw_classes
from tests.unit.cli.conftest import Cli
from tests.unit.training.search.recorded import ended, row, spec_of

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray has no package here")
PARAMETERS: Parameters = {
    "optimizer.learning_rate": 1e-3,
    "batch_size": 32,
    "augment.flip": "none",
}
SEARCH = ("--recipe", "cnn-122k", "--space", "optimizer")


def test_data_that_is_not_there_is_refused_before_a_folder_is_made(
    cli: Cli, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    code, printed = cli("tune", tmp_path / "nowhere", *SEARCH, "--out", run)
    assert code == 2
    assert "nowhere is not there" in printed
    assert not run.exists()
    (tmp_path / "one-class" / "cat").mkdir(parents=True)
    code, printed = cli("tune", tmp_path / "one-class", *SEARCH, "--out", run)
    assert code == 2
    assert "has 1 sub-folders" in printed


def test_what_does_not_go_together_is_refused_before_data_are_looked_for(
    cli: Cli, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    wrong = ("--search", "pbt", "--workers-per-trial", 2)
    code, printed = cli("tune", tmp_path / "nowhere", *SEARCH, "--out", run, *wrong)
    assert code == 2
    assert "--search pbt trains each trial in one process" in printed
    assert not run.exists()


def test_a_dry_run_prints_ten_of_the_configs_and_does_nothing(cli: Cli, tmp_path: Path) -> None:
    space = tmp_path / "mine.toml"
    space.write_text(
        "optimizer.learning_rate = {log_uniform = [1e-4, 1e-1]}\nbatch_size = {choice = [64, 128]}"
    )
    dry = ("tune", tmp_path / "nowhere", "--recipe", "cnn-122k", "--space", space, "--dry-run")
    code, printed = cli(*dry, "--search", "random", "--seed", 5, "--json")
    assert code == 0
    plan = planned(spec_of(tmp_path, space=get_space(str(space), get_recipe("cnn-122k")), seed=5))
    assert json.loads(printed) == plan[:10]
    code, printed = cli(*dry)
    assert code == 0
    assert "10 of 16 trials of cnn-122k" in printed
    assert "6 more, found from the results of earlier ones" in printed
    assert "batch_size" in printed
    assert list(tmp_path.iterdir()) == [space]
    space.write_text("learning_rat = {uniform = [0, 1]}")
    code, printed = cli(*dry)
    assert code == 2
    assert "Did you mean optimizer.learning_rate" in printed


def test_what_a_resumed_search_would_ignore_is_refused_by_name(cli: Cli, tmp_path: Path) -> None:
    open_search(spec_of(tmp_path / "run"))
    ignored = ("--trials", 3, "--seed", 1, "--search", "random", "--set", "epochs=1")
    code, printed = cli("tune", "cifar10", "--resume", tmp_path / "run", *ignored)
    assert code == 2
    assert "leave out DATA, --trials, --search, --set, --seed" in printed
    taken = ("--refit", "--gpus-per-trial", 0, "--address", "local", "--json", "--dry-run")
    code, printed = cli("tune", "--resume", tmp_path / "run", *taken)
    assert code == 0


@needs_ray
def test_a_search_of_which_no_trial_could_be_trained_ends_with_1(cli: Cli, tmp_path: Path) -> None:
    open_search(spec_of(tmp_path, num_trials=2))
    records = Records.load(spec_of(tmp_path, num_trials=2))
    for number in (0, 1):
        records.begin(number, PARAMETERS)
        records.end(number, "The loss is no longer finite.")
    code, printed = cli("tune", "--resume", tmp_path)
    assert code == 1
    assert "No trial of 2 could be trained. Trial 0: The loss is no longer finite." in printed


@needs_ray
def test_a_search_ended_by_its_bound_has_a_best_trial_and_says_so(cli: Cli, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, num_trials=2, epoch_budget=1)
    open_search(spec)
    records = Records.load(spec)
    for number, accuracies in ((0, [0.4]), (1, [])):
        budget = EpochBudget.of(spec, number)
        while budget.take():
            budget.settle()
        ended(records, number, 0.01, accuracies)
    code, printed = cli("tune", "--resume", tmp_path)
    assert code == 0
    assert re.search(r"epochs +1 of at most 1, which ended 2 trials", printed)
    assert "1</b> of at most 1 epochs" in records.run.report.read_text()
    rows = pq.read_table(records.run.trials).to_pylist()
    assert [(row["state"], row["epochs"]) for row in rows] == [("budget", 1), ("budget", 0)]
    code, printed = cli("tune", "--resume", tmp_path, "--json")
    told, _ = json.JSONDecoder().raw_decode(printed)
    assert (told["best_trial"], told["epochs"], told["max_epochs"]) == (0, 1, 1)
    assert told["trials"]["budget"] == 2
    code, printed = cli("tune", "--resume", tmp_path, "--max-epochs", 2)
    assert code == 2
    assert "leave out --max-epochs" in printed


@needs_ray
def test_the_bundle_of_a_population_is_its_best_member_as_it_is(cli: Cli, tmp_path: Path) -> None:
    draw_classes(tmp_path / "classes", each=12)
    config = override(get_recipe("cnn-122k"), ["epochs=2"])
    given = {"config": config, "data": str(tmp_path / "classes"), "num_trials": 2}
    spec = spec_of(tmp_path / "run", search="pbt", scheduler="none", **given)
    open_search(spec)
    records = Records.load(spec)
    donor, heir = records.run.trial(0), records.run.trial(1)
    for number in (0, 1):
        records.begin(number, PARAMETERS)
    ours = TrainingSpec(
        config=apply(config, PARAMETERS), data=spec.data, run=str(donor.folder), code_version="0"
    )
    add = lambda trained: records.add_row(0, trained.as_dict())  # noqa: E731
    train_trial(ours, config, Ranks(), add, EpochBudget.of(spec, 0))
    records.add_row(1, row(0, 0.1))
    records.exploit(1, 0, 2, {**PARAMETERS, "batch_size": 64})
    take_over(heir, donor.training.checkpoints)
    donor.failure.write_text(json.dumps({"error": "Out of memory."}))
    for number in (0, 1):
        records.end(number)
    code, printed = cli("tune", "--resume", tmp_path / "run", "--refit")
    assert code == 0
    assert "The bundle is trial 1 as it is" in printed
    assert "again" not in printed
    assert (records.run.bundle / "bundle.json").is_file()
