"""A verb's command line, through the spec of a job, and back."""

from dataclasses import fields
from pathlib import Path

import pytest

from cifar_ray.cli import job_specs, jobs
from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.job import EvaluateJob, PredictJob
from cifar_ray.config.labelling import LabellingConfig, RunOptions
from cifar_ray.errors import InputError
from cifar_ray.prediction.plan import Request
from tests.conftest import REPOSITORY
from tests.unit.cli.parsed import parse


def request(**changes: object) -> Request:
    content = {
        "source": "s3://bucket/a",
        "destination": "s3://bucket/b",
        "model": None,
        "weights": None,
        "config": LabellingConfig(),
        "execution": ExecutionRequest(batch_size=8),
    }
    return Request(**{**content, **changes})  # type: ignore[arg-type]


def test_a_request_survives_the_way_to_the_cluster() -> None:
    asked = request(fresh=True, source_moved=True)
    assert job_specs.request(job_specs.predict_job(asked, RunOptions())) == asked


def test_every_field_of_a_request_travels() -> None:
    asked = {field.name for field in fields(Request)} - {"weights"}
    assert asked == set(PredictJob.model_fields) - {"verb", "code_version", "options", "again"}


def test_submit_takes_the_options_of_the_verb() -> None:
    job = parse(
        "predict",
        *("s3://bucket/a", "--out", "s3://bucket/b", "--top-k", "3", "--workers", "7"),
        *("--precision", "float32", "--exclude", "*.gif", "--max-failure-rate", "0.5"),
    )
    assert isinstance(job, PredictJob)
    assert (job.source, job.destination) == ("s3://bucket/a", "s3://bucket/b")
    assert job.config == LabellingConfig(top_k=3, exclude=("*.gif",))
    assert job.execution.explicit() == {"precision": "float32"}
    assert job.options == RunOptions(engine="ray", workers=7, max_failure_rate=0.5)


def test_a_run_that_is_renewed_and_an_evaluation_travel() -> None:
    renewed = parse("predict", "s3://bucket/a", "--out", "s3://bucket/b", "--retry-failed")
    assert isinstance(renewed, PredictJob)
    assert renewed.again == "retry-failed"
    judged = parse("evaluate", "runs/a", "runs/b", "cifar10", "--out", "/mnt/judged")
    assert isinstance(judged, EvaluateJob)
    assert (judged.bundles, judged.data) == (("runs/a", "runs/b"), "cifar10")


def test_the_local_engine_is_no_job() -> None:
    with pytest.raises(InputError, match="leave out --local"):
        parse("predict", "s3://bucket/a", "--out", "s3://bucket/b", "--local")


def test_entry_points_are_short_and_there_is_one_a_verb() -> None:
    files = sorted((REPOSITORY / "jobs").glob("*.py"))
    assert {path.stem for path in files} == set(jobs.SUBMITTED)
    assert all(len(path.read_text().splitlines()) < 30 for path in files)


def test_an_uploaded_model_on_a_shared_disk_is_taken_from_there(tmp_path: Path) -> None:
    job = job_specs.predict_job(request(model=str(tmp_path)), RunOptions())
    assert job_specs.request(job).model == str(tmp_path)
