"""`tune` as a user gives it, but for the search itself, which needs a Ray."""

from pathlib import Path

from cifar_ray.training.search.opening import open_search
from tests.unit.cli.conftest import Cli
from tests.unit.training.search.recorded import spec_of

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


def test_what_a_resumed_search_would_ignore_is_refused_by_name(cli: Cli, tmp_path: Path) -> None:
    open_search(spec_of(tmp_path / "run"))
    ignored = ("--trials", 3, "--seed", 1, "--search", "random", "--set", "epochs=1")
    code, printed = cli("tune", "cifar10", "--resume", tmp_path / "run", *ignored)
    assert code == 2
    assert "leave out DATA, --trials, --search, --set, --seed" in printed
    taken = ("--refit", "--gpus-per-trial", 0, "--address", "local", "--json", "--dry-run")
    code, printed = cli("tune", "--resume", tmp_path / "run", *taken)
    assert code == 0
