"""Jobs from a second shell: a real cluster of several nodes, the command line, and no secrets."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from cifar_ray.cli.boundary import INTERRUPTED
from tests.cluster.conftest import IMAGES_PER_SHARD, REPOSITORY, labelled_locally, parts
from tests.cluster.nodes import Nodes
from tests.drawing import draw_classes
from tests.store.servers import REGION, MotoServer, client_of, running

BUCKET = "jobs"
CIFAR_RAY = (sys.executable, "-m", "cifar_ray")
TIMEOUT_S = 400
COPIES = 10


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    """An S3 server with a bucket, for who has its credentials."""
    with running(MotoServer(), BUCKET) as server:
        yield server


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def nodes(server: MotoServer, cache: Path) -> Iterator[Nodes]:
    """A head without work and one worker, started by somebody who has credentials around."""
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "CIFAR_RAY_CACHE": str(cache),
    }
    with Nodes(variables) as cluster:
        cluster.add(num_cpus=2)
        yield cluster


@pytest.fixture(scope="module")
def many(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many images that a run is not over before it can be stopped."""
    root = tmp_path_factory.mktemp("many") / "images"
    for number in range(COPIES):
        shutil.copytree(images, root / str(number), copy_function=os.link)
    return root


def arguments(images: Path, out: Path, *more: str) -> list[str]:
    options = ("--images-per-shard", str(IMAGES_PER_SHARD), "--max-failure-rate", "1")
    return ["predict", str(images), "--out", str(out), *options, *more]


def submit(nodes: Nodes, *options: str) -> dict[str, Any]:
    done = nodes.run("submit", *options, "--address", nodes.url, "--json")
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def jobs(nodes: Nodes, *options: str) -> Any:
    done = nodes.run("jobs", *options, "--address", nodes.url, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_for(condition: Any, process: subprocess.Popen[str] | None = None) -> None:
    for _ in range(TIMEOUT_S * 5):
        if condition():
            return
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}")
        psutil.wait_procs([psutil.Process()], timeout=0.2)
    raise AssertionError("waited in vain")


@pytest.mark.slow  # labels 3,000 images, two times over
def test_a_job_is_stopped_and_submitted_again_and_writes_every_row_once(
    nodes: Nodes, many: Path, tmp_path: Path
) -> None:
    undisturbed = labelled_locally(many, tmp_path / "undisturbed")
    out = tmp_path / "out"
    command = arguments(many, out, "--workers", "1", "--shared-path")
    first = submit(nodes, *command)
    assert first["started"]
    # The same command finds the job that lives.
    again = submit(nodes, *command)
    assert again == {**first, "started": False}
    # Another command for the same DEST is refused.
    other = nodes.run("submit", *command, "--top-k", "1", "--address", nodes.url)
    assert other.returncode == 2
    assert first["job_id"] in other.stderr
    # Ctrl-C ends the following, not the job.
    follow = subprocess.Popen(
        [*CIFAR_RAY, "jobs", "logs", "-f", first["job_id"], "--address", nodes.url],
        cwd=REPOSITORY,
        env=nodes.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follow.stdout is not None
    # Ray tells first that it sets up the environment.
    assert any("Model" in line for line in iter(follow.stdout.readline, ""))
    follow.send_signal(signal.SIGINT)
    _, said = follow.communicate()
    assert follow.returncode == INTERRUPTED
    assert "goes on" in said
    assert "Interrupted" not in said
    wait_for(lambda: len(list(out.glob("predictions/*"))) >= 3)
    row = jobs(nodes, "status", first["job_id"])
    assert (row["status"], row["exit_code"]) == ("RUNNING", None)
    stopped = jobs(nodes, "stop", first["job_id"])
    assert stopped["stopped"]
    assert stopped["exit_code"] == INTERRUPTED
    assert 3 <= len(parts(out)) < len(undisturbed)
    second = nodes.run("submit", *command, "--follow", "--address", nodes.url)
    assert second.returncode == 0, second.stdout + second.stderr
    name, _, number = first["job_id"].rpartition("-")
    assert number == "1"
    assert f"{name}-2" in second.stderr
    assert "Going on with the run in DEST" in second.stdout
    assert parts(out) == undisturbed
    assert [row["id"] for row in jobs(nodes, "list")][:2] == [f"{name}-2", f"{name}-1"]


def test_the_exit_code_of_a_followed_job_is_the_job_s(nodes: Nodes, tmp_path: Path) -> None:
    command = arguments(tmp_path / "nowhere", tmp_path / "out", "--shared-path", "--follow")
    done = nodes.run("submit", *command, "--address", nodes.url)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "does not exist" in done.stdout


def test_what_only_this_machine_has_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    done = nodes.run("submit", *arguments(tmp_path, tmp_path / "out"), "--address", nodes.url)
    assert done.returncode == 2
    assert "--shared-path" in done.stderr


def test_a_local_model_is_uploaded_once_by_its_digest(
    nodes: Nodes, images: Path, tmp_path: Path
) -> None:
    box = REPOSITORY / "cifar_ray" / "models" / "box"
    options = ("--shared-path", "--model", str(box), "--limit", "5")
    for out in ("one", "two"):
        job = submit(nodes, *arguments(images, tmp_path / out, *options))
        assert jobs(nodes, "logs", job["job_id"], "-f")["exit_code"] == 0
    (uploaded,) = (path for path in (tmp_path / "_bundles").iterdir() if path.name != "_tmp")
    assert sorted(path.name for path in uploaded.iterdir()) == sorted(
        path.name for path in box.iterdir()
    )
    spec = json.loads((tmp_path / "one" / "run.json").read_text())
    assert spec["bundle"]["digest"] == uploaded.name


def test_the_job_api_wants_the_token(nodes: Nodes) -> None:
    assert nodes.get("/api/jobs/").status_code == 200
    assert nodes.get("/api/jobs/", token="").status_code == 401
    assert nodes.get("/api/jobs/", token="0" * 64).status_code in (401, 403)
    posted = requests.post(nodes.url + "/api/jobs/", json={"entrypoint": "true"}, timeout=60)
    assert posted.status_code == 401
    without = nodes.run("jobs", "list", "--address", nodes.url, RAY_AUTH_TOKEN_PATH=os.devnull)
    assert without.returncode == 2, without.stdout
    assert "wants its token" in without.stderr


def test_doctor_finds_a_shut_cluster_in_order(nodes: Nodes) -> None:
    done = nodes.run("doctor", "--address", nodes.url, "--json")
    found = json.loads(done.stdout)["cluster"]
    assert found["jobs_need_token"]
    assert found["loopback"]
    warnings = json.loads(done.stdout)["warnings"]
    assert not [text for text in warnings if "token" in text or "CVE" in text]


SMALL = ("--recipe", "cnn-122k", "--set", "epochs=1", "--set", "batch_size=16")
ONE_TRIAL = ("--space", "optimizer", "--search", "random", "--trials", "1", "--refit")


@pytest.mark.parametrize(
    "verb", ["predict", *(pytest.param(verb, marks=pytest.mark.slow) for verb in ("train", "tune"))]
)
def test_no_credential_stands_in_any_file_or_log(
    verb: str, nodes: Nodes, images: Path, server: MotoServer, cache: Path, tmp_path: Path
) -> None:
    classes, place, out = f"s3://{BUCKET}/classes", f"s3://{BUCKET}/{verb}", str(tmp_path / "out")
    commands = {
        "predict": ("predict", str(images), "--shared-path", "--out", place, "--limit", "40"),
        "train": ("train", classes, "--out", place, *SMALL, "--workers", "2"),
        # A search's own folder lies in no bucket.
        "tune": ("tune", classes, "--shared-path", "--out", out, *SMALL, *ONE_TRIAL),
    }
    client = client_of(server, server.port)
    draw_classes(tmp_path / "classes", each=12)
    for path in (tmp_path / "classes").rglob("*.png"):
        key = path.relative_to(tmp_path).as_posix()
        client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
    job = submit(nodes, *commands[verb])
    log = nodes.run("jobs", "logs", "-f", job["job_id"], "--address", nodes.url)
    assert log.returncode == 0, log.stdout + log.stderr
    answers = [log.stdout, log.stderr, nodes.get("/api/jobs/").text]
    secrets = (server.access_key, server.secret_key, nodes.token.read_text())
    assert not [text for text in answers if any(secret in text for secret in secrets)]

    listed = client.list_objects_v2(Bucket=BUCKET)
    assert not listed["IsTruncated"]
    keys = [row["Key"] for row in listed["Contents"]]
    objects = {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}
    roots = (tmp_path, cache, nodes.folder)
    files = [path for root in roots for path in root.rglob("*") if path.is_file()]
    assert any("raylet" in path.name for path in files)
    record = {"predict": "run.json", "train": "config.json", "tune": "search.json"}[verb]
    assert f"{verb}/{record}" in objects or tmp_path / "out" / record in files
    written = objects | {str(path): path.read_bytes() for path in files}
    holders = [name for name, data in written.items() if any(s.encode() in data for s in secrets)]
    assert holders == [str(nodes.token)]
