"""`tune` as a user gives it, but for the search itself, which needs a Ray."""

from pathlib import Path

from tests.unit.cli.conftest import Cli

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
