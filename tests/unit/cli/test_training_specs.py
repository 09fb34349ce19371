"""The command line of `train`, through the spec of a job, and back."""

from pathlib import Path

import pytest

from cifar_ray.cli.training_specs import Request, spec_of_job, training_spec
from cifar_ray.config.job import TrainJob
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingSpec, override
from cifar_ray.errors import InputError
from cifar_ray.training.resume import open_run
from tests.unit.cli.parsed import parse


def test_a_job_trains_what_the_verb_would(tmp_path: Path) -> None:
    data, out = str(tmp_path / "classes"), str(tmp_path / "run")
    settings = ["epochs=3", "seed=1"]
    request = Request(data, "weights.pth", "cpu", 2, settings, mlflow=False)
    options = ("--recipe", "vgg16-frozen", "--weights", "weights.pth", "--device", "cpu")
    options += ("--workers", "2", *(f"--set={setting}" for setting in settings))
    job = parse("train", data, "--out", out, *options)
    assert isinstance(job, TrainJob)
    spec = training_spec(request, "vgg16-frozen", None, out)
    assert spec_of_job(job) == spec
    assert (spec.workers, spec.config.epochs, spec.settings) == (2, 3, tuple(settings))
    assert spec.weights == str(Path.cwd() / "weights.pth")


def test_submit_train_sends_the_whole_recipe() -> None:
    job = parse("train", "cifar10", "--recipe", "cnn-122k", "--out", "/runs/a", "--set", "epochs=3")
    assert isinstance(job, TrainJob)
    assert job.config.epochs == 3
    assert job.settings == ("epochs=3",)


def test_submit_train_of_another_run_sends_what_that_was_started_with(tmp_path: Path) -> None:
    spec = TrainingSpec(
        config=override(get_recipe("cnn-122k"), ["epochs=3"]),
        data="s3://bucket/classes",
        run=str(tmp_path / "first"),
        weights="/mnt/weights/cnn.pth",
        settings=("epochs=3",),
        code_version="0",
    )
    open_run(spec)
    job = parse("train", "--from", spec.run, "--out", "s3://bucket/again", "--set", "seed=1")
    assert isinstance(job, TrainJob)
    assert job.config == spec.config.model_copy(update={"seed": 1})
    assert job.settings == ("epochs=3", "seed=1")
    assert (job.data, job.weights) == (spec.data, spec.weights)
    job = parse("train", "cifar10", "--from", spec.run, "--out", "s3://bucket/other")
    assert job.data == "cifar10"


@pytest.mark.parametrize("given", [(), ("--recipe", "cnn-122k", "--from", "runs/a")])
def test_submit_train_wants_a_recipe_or_a_run(given: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="one of --recipe NAME and --from RUN"):
        parse("train", "cifar10", "--out", "s3://bucket/b", *given)


def test_submit_train_takes_one_recipe_at_a_time() -> None:
    with pytest.raises(InputError, match="one recipe"):
        parse("train", "cifar10", "--out", "s3://bucket/b", "--recipe", "reports")
