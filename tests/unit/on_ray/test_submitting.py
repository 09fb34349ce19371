"""Submitting: one command, one job at a time; and nothing that the cluster cannot reach."""

import json
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("ray") is None:
    pytest.skip("Ray has no package for this platform", allow_module_level=True)

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.job import EvaluateJob, PredictJob, TrainJob, TuneJob, read_job
from cifar_ray.config.labelling import LabellingConfig, RunOptions
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.search import SearchSpec
from cifar_ray.config.spaces import get_space
from cifar_ray.errors import InputError
from cifar_ray.on_ray.jobs import Jobs
from cifar_ray.on_ray.submitting import Submitter
from tests.conftest import REPOSITORY
from tests.unit.on_ray.job_server import JobServer, job_server

BOX = REPOSITORY / "cifar_ray" / "models" / "box"
TOKEN = "0123456789abcdef" * 4


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobServer]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with job_server() as running:
        yield running


def job(**changes: object) -> PredictJob:
    content = {
        "source": "s3://bucket/photos",
        "destination": "s3://bucket/labels",
        "config": LabellingConfig(),
        "execution": ExecutionRequest(),
        "options": RunOptions(engine="ray"),
    }
    return PredictJob.model_validate({**content, **changes})


def test_a_job_is_started_with_its_spec_and_its_entry_point(
    server: JobServer, tmp_path: Path
) -> None:
    asked = job(config=LabellingConfig(top_k=2))
    submission = Submitter(Jobs(server.url)).submit(asked)
    assert submission.started
    assert submission.job_id == f"predict-{asked.digest[:12]}-1"
    sent = server.jobs[submission.job_id]
    assert sent["entrypoint"] == "exec python jobs/predict.py spec.json"
    files = server.files(submission.job_id)
    assert set(files) == {"spec.json", "jobs/predict.py"}
    assert files["jobs/predict.py"] == (REPOSITORY / "jobs" / "predict.py").read_bytes()
    (tmp_path / "spec.json").write_bytes(files["spec.json"])
    assert read_job(tmp_path / "spec.json") == asked


def test_while_a_job_lives_the_same_command_finds_it_and_after_its_end_n_grows(
    server: JobServer,
) -> None:
    submitter = Submitter(Jobs(server.url))
    first = submitter.submit(job())
    again = submitter.submit(job())
    assert (again.job_id, again.started) == (first.job_id, False)
    assert len(server.jobs) == 1
    server.end(first.job_id, "STOPPED")
    second = submitter.submit(job())
    assert second.started
    assert second.job_id == first.job_id.removesuffix("-1") + "-2"


def test_a_request_that_two_send_at_once_starts_one_job(server: JobServer) -> None:
    submitter = Submitter(Jobs(server.url))
    first = submitter.submit(job())
    # As if the other's job were not in the list yet.
    server.hide_jobs = True
    second = submitter.submit(job())
    assert (second.job_id, second.started) == (first.job_id, False)
    assert len(server.jobs) == 1


def test_two_commands_for_one_destination_are_refused_while_one_lives(server: JobServer) -> None:
    submitter = Submitter(Jobs(server.url))
    first = submitter.submit(job())
    with pytest.raises(InputError, match=first.job_id):
        submitter.submit(job(config=LabellingConfig(top_k=1)))
    server.end(first.job_id, "FAILED", 4)
    assert submitter.submit(job(config=LabellingConfig(top_k=1))).started


@pytest.mark.parametrize("changes", [{"source": "/photos"}, {"destination": "file:///labels"}])
def test_a_local_place_is_refused_with_the_reason(
    changes: dict[str, str], server: JobServer
) -> None:
    with pytest.raises(InputError, match=r"cannot reach.*--shared-path"):
        Submitter(Jobs(server.url)).submit(job(**changes))
    assert server.jobs == {}


def test_local_training_data_is_refused_and_cifar10_is_not(server: JobServer) -> None:
    asked = TrainJob(data="/classes", destination="/runs/a", config=get_recipe("cnn-122k"))
    with pytest.raises(InputError, match="--shared-path"):
        Submitter(Jobs(server.url)).submit(asked)
    shared = Submitter(Jobs(server.url), shared_path=True)
    sent = shared.submit(asked.model_copy(update={"data": "cifar10"}))
    assert json.loads(server.files(sent.job_id)["spec.json"])["data"] == "cifar10"


def test_local_pretrained_weights_are_refused_with_the_reason(server: JobServer) -> None:
    asked = TrainJob(
        data="cifar10",
        destination="s3://bucket/runs/a",
        config=get_recipe("cnn-122k"),
        weights="weights/resnet50.pth",
    )
    with pytest.raises(InputError, match=r"--weights weights/resnet50.pth .*--shared-path"):
        Submitter(Jobs(server.url)).submit(asked)
    assert server.jobs == {}
    sent = Submitter(Jobs(server.url), shared_path=True).submit(asked)
    weights = json.loads(server.files(sent.job_id)["spec.json"])["weights"]
    assert weights == str(Path("weights/resnet50.pth").absolute())


def test_a_search_travels_with_its_space_and_the_place_that_it_writes_to(
    server: JobServer, tmp_path: Path
) -> None:
    config = get_recipe("cnn-122k")
    search = SearchSpec(
        config=config,
        space=get_space("optimizer", config),
        search="random",
        scheduler="none",
        num_trials=2,
        seed=0,
        data="cifar10",
        run=str(tmp_path / "search"),
        code_version="0",
    )
    asked = TuneJob(search=search)
    with pytest.raises(InputError, match="--shared-path"):
        Submitter(Jobs(server.url)).submit(asked)
    sent = Submitter(Jobs(server.url), shared_path=True).submit(asked)
    assert sent.job_id.startswith("tune-")
    assert server.jobs[sent.job_id]["entrypoint"] == "exec python jobs/tune.py spec.json"
    files = server.files(sent.job_id)
    assert "jobs/tune.py" in files
    (tmp_path / "spec.json").write_bytes(files["spec.json"])
    assert read_job(tmp_path / "spec.json") == asked
    row = Jobs(server.url).row(sent.job_id)
    assert (row.verb, row.destination) == ("tune", search.run)


def test_a_local_model_goes_beside_the_destination_once(server: JobServer, tmp_path: Path) -> None:
    submitter = Submitter(Jobs(server.url), shared_path=True)
    places = {"source": "/photos", "destination": str(tmp_path / "labels")}
    sent = submitter.submit(job(model=str(BOX), **places))
    model = Path(json.loads(server.files(sent.job_id)["spec.json"])["model"])
    assert model.parent == tmp_path / "_bundles"
    written = {path.name: path.stat().st_mtime_ns for path in model.iterdir()}
    assert set(written) == {path.name for path in BOX.iterdir()}
    submitter.submit(job(model=str(BOX), **places))
    assert {path.name: path.stat().st_mtime_ns for path in model.iterdir()} == written


def test_bundles_that_are_evaluated_are_uploaded(server: JobServer, tmp_path: Path) -> None:
    asked = EvaluateJob(bundles=(str(BOX),), data="cifar10", destination=str(tmp_path / "judged"))
    sent = Submitter(Jobs(server.url), shared_path=True).submit(asked)
    (bundle,) = json.loads(server.files(sent.job_id)["spec.json"])["bundles"]
    assert Path(bundle).parent == tmp_path / "_bundles"
    assert "jobs/evaluate.py" in server.files(sent.job_id)


def test_shipped_code_is_this_package_and_the_lock(server: JobServer) -> None:
    sent = Submitter(Jobs(server.url), ship_code=True).submit(job())
    files = server.files(sent.job_id)
    assert "cifar_ray/__init__.py" in files
    assert "cifar_ray/models/box/model.safetensors" in files
    assert not [name for name in files if "__pycache__" in name]
    (lock,) = (name for name in files if name.startswith("requirements-"))
    assert files[lock] == (REPOSITORY / "requirements.lock").read_bytes()
    packages = server.jobs[sent.job_id]["runtime_env"]["pip"]["packages"]
    assert packages == [f"-r ${{RAY_RUNTIME_ENV_CREATE_WORKING_DIR}}/{lock}"]


def test_a_cluster_that_has_just_started_is_waited_for(server: JobServer) -> None:
    server.agents_missing = 2
    assert Submitter(Jobs(server.url)).submit(job()).started


def test_rows_tell_status_and_exit_code(server: JobServer) -> None:
    jobs = Jobs(server.url)
    job_id = Submitter(jobs).submit(job()).job_id
    assert jobs.row(job_id).alive
    for status, code, expected in (("FAILED", 3, 3), ("STOPPED", -15, 130), ("SUCCEEDED", 0, 0)):
        server.end(job_id, status, code)
        row = jobs.row(job_id)
        assert (row.status, row.exit_code, row.verb) == (status, expected, "predict")
    with pytest.raises(InputError, match=f"no job other.*{job_id}"):
        jobs.row("other")


def test_the_token_goes_along_and_without_it_the_message_helps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(stat.S_IRUSR)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with job_server(token=TOKEN) as shut:
        jobs = Jobs(shut.url)
        assert jobs.rows() == []
        assert jobs.ray_version() == "2.60.0"
        sent = Submitter(jobs).submit(job())
        assert TOKEN not in json.dumps(shut.jobs)
        assert not [f for f in shut.files(sent.job_id).values() if TOKEN.encode() in f]
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        with pytest.raises(InputError, match="wants its token"):
            Jobs(shut.url)


def test_nobody_at_the_address_is_told() -> None:
    with pytest.raises(InputError, match="No Ray dashboard answers"):
        Jobs("http://127.0.0.1:9")
    with pytest.raises(InputError, match="leave user name"):
        Jobs("http://user:geheim@127.0.0.1:9")
