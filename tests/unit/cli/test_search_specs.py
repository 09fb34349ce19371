"""The command line of `tune`, through the spec of a job, and back."""

from pathlib import Path

import pytest

from cifar_ray.cli.search_specs import placed, resuming_command
from cifar_ray.config.job import TuneJob
from cifar_ray.errors import InputError
from tests.unit.cli.parsed import parse
from tests.unit.training.search.recorded import spec_of


def test_submit_tune_sends_the_whole_search_and_the_space_of_a_file(tmp_path: Path) -> None:
    space = tmp_path / "mine.toml"
    space.write_text("learning_rate = {choice = [0.1, 0.2, 0.3]}")
    options = ("--recipe", "cnn-122k", "--space", str(space), "--out", "runs/search")
    job = parse("tune", "classes", *options, "--search", "grid", "--refit", "--seed", "4")
    assert isinstance(job, TuneJob)
    assert (job.data, job.destination, job.refit) == ("classes", "runs/search", True)
    assert (job.search.num_trials, job.search.seed, job.search.space.name) == (3, 4, "mine")


def test_a_search_that_goes_on_is_submitted_as_it_was_begun() -> None:
    with pytest.raises(InputError, match="leave out --resume"):
        parse("tune", "--resume", "runs/search")


def test_a_search_that_cannot_be_is_refused_before_it_travels() -> None:
    options = ("--recipe", "cnn-122k", "--space", "whole", "--out", "runs/search")
    with pytest.raises(InputError, match="at least two trials"):
        parse("tune", "cifar10", *options, "--search", "pbt", "--trials", "1")


def test_places_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = placed(spec_of(Path("search"), data="classes"))
    assert (spec.run, spec.data) == (str(tmp_path / "search"), str(tmp_path / "classes"))
    assert placed(spec_of(Path("search"), data="cifar10")).data == "cifar10"


def test_the_command_that_goes_on_has_what_the_folder_does_not_say() -> None:
    spec = spec_of(Path("my search"))
    go_on = "cifar-ray tune --resume 'my search'"
    assert resuming_command(spec, refit=False, address=None) == go_on
    shared = spec.model_copy(update={"gpus_per_trial": 0.25})
    options = "--gpus-per-trial 0.25 --refit --address local"
    assert resuming_command(shared, refit=True, address="local") == f"{go_on} {options}"
