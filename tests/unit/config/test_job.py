"""The spec of a job: one file, the same digest for the same command, no secrets in it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.job import (
    EvaluateJob,
    Job,
    PredictJob,
    TrainJob,
    TuneJob,
    read_job,
    without_credentials,
)
from cifar_ray.config.labelling import LabellingConfig, RunOptions
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.search import SearchSpec
from cifar_ray.config.spaces import get_space
from cifar_ray.errors import InputError


def predict_job(**changes: object) -> PredictJob:
    content = {
        "source": "s3://bucket/photos",
        "destination": "s3://bucket/labels",
        "config": LabellingConfig(top_k=3),
        "execution": ExecutionRequest(device="cpu", precision="auto", batch_size=None),
        "options": RunOptions(engine="ray", workers=2),
    }
    return PredictJob.model_validate({**content, **changes})


def train_job() -> TrainJob:
    return TrainJob(
        data="cifar10", destination="/runs/a", config=get_recipe("cnn-122k"), settings=("epochs=3",)
    )


def tune_job(data: str = "cifar10", run: str = "/runs/search") -> TuneJob:
    config = get_recipe("cnn-122k")
    search = SearchSpec(
        config=config,
        space=get_space("whole", config),
        search="tpe",
        scheduler="asha",
        num_trials=4,
        seed=1,
        data=data,
        run=run,
        code_version="0",
    )
    return TuneJob(search=search, refit=True)


@pytest.mark.parametrize("job", [predict_job(), train_job(), tune_job()], ids=lambda job: job.verb)
def test_a_spec_file_gives_the_job_again(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(job.to_bytes())
    again = read_job(path)
    assert again == job
    assert again.digest == job.digest


def test_what_the_user_left_open_is_open_on_the_cluster(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(predict_job().to_bytes())
    job = read_job(path)
    assert isinstance(job, PredictJob)
    assert job.execution.explicit() == {"device": "cpu"}


def test_another_setting_is_another_digest() -> None:
    assert predict_job().digest == predict_job().digest
    assert predict_job(fresh=True).digest != predict_job().digest
    assert predict_job(model="torchvision:resnet18").digest != predict_job().digest


def test_a_spec_of_another_version_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    # A later version may have fields that this one does not know.
    path.write_text('{"verb": "predict", "code_version": "99.1.0", "new": 1}')
    with pytest.raises(InputError, match=r"pip install 'cifar-ray==99\.1\.0'.*--ship-code"):
        read_job(path)


def test_a_spec_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(predict_job().to_bytes().decode().replace('"top_k": 3', '"top_k": 0'))
    with pytest.raises(InputError, match="top_k"):
        read_job(path)


@pytest.mark.parametrize("place", ["s3://AKIAFAKE:geheim@bucket/x", "https://geheim@host/bucket"])
def test_credentials_in_a_place_are_refused_and_not_repeated(place: str) -> None:
    with pytest.raises(InputError, match="leave user name and password out") as caught:
        without_credentials(place)
    assert "geheim" not in str(caught.value)


def test_no_field_of_a_spec_takes_credentials() -> None:
    for field in ("source", "destination", "model"):
        with pytest.raises((InputError, ValidationError), match="leave user name"):
            predict_job(**{field: "s3://key:secret@bucket/x"})
    for place in ("data", "run"):
        with pytest.raises((InputError, ValidationError), match="leave user name"):
            tune_job(**{place: "s3://key:secret@bucket/x"})
    for field in ("data", "destination", "weights"):
        given = {**train_job().model_dump(), field: "s3://key:secret@bucket/x"}
        with pytest.raises((InputError, ValidationError), match="leave user name"):
            TrainJob.model_validate(given)
    for field, place in (("data", "s3://k:s@b/x"), ("bundles", ("s3://b/x", "s3://k:s@b/y"))):
        given = {"bundles": ("s3://b/x",), "data": "cifar10", "destination": "s3://b/z"}
        with pytest.raises((InputError, ValidationError), match="leave user name"):
            EvaluateJob.model_validate({**given, field: place})


def test_an_at_sign_in_a_key_is_no_credential() -> None:
    assert without_credentials("s3://bucket/mail@home/x") == "s3://bucket/mail@home/x"
    assert without_credentials("/disk/a@b") == "/disk/a@b"
