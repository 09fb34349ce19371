"""The service on Ray Serve: two replicas, asked over HTTP."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pyarrow.parquet as pq
import pytest
from ray import serve

from cifar_ray.config.addresses import LOOPBACK
from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.config.serving import ServerOptions, ServiceConfig
from cifar_ray.errors import InputError
from cifar_ray.models.bundle import Bundle
from cifar_ray.on_ray.serving.application import NAME, REPLICA
from cifar_ray.on_ray.serving.counts import Counts
from cifar_ray.on_ray.serving.running import RunningService, running_service
from cifar_ray.on_ray.session import Session
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.pipeline import label
from cifar_ray.prediction.plan import Request, make_plan
from tests.cluster.conftest import BROKEN, REPOSITORY, environment, processes_of
from tests.serving import free_port

REPLICAS = 2
CONNECTIONS = 8
TIMEOUT_S = 300
FLOAT32 = ExecutionRequest(device="cpu", precision="float32")
CONFIG = ServiceConfig(
    models={"box": str(Bundle.default().path)}, default_model="box", execution=FLOAT32
)
NEIGHBOUR = "somebody-else-s"


@pytest.fixture(scope="module")
def service(session: Session) -> Iterator[RunningService]:
    """The service; at the end it leaves alone what others have put beside it."""
    options = ServerOptions(port=free_port(), replicas=REPLICAS)
    with running_service(CONFIG, options) as running:
        yield running
        neighbour = serve.deployment(Counts, ray_actor_options={"num_cpus": 0})
        serve.run(neighbour.bind(), name=NEIGHBOUR, route_prefix=None)
    applications = set(serve.status().applications)
    serve.shutdown()
    assert applications == {NEIGHBOUR}


@pytest.fixture
def client(service: RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=TIMEOUT_S) as opened:
        yield opened


def replicas() -> list[psutil.Process]:
    return processes_of(f"ray::ServeReplica:{NAME}:{REPLICA}")


def test_replicas_that_the_cluster_has_no_room_for_are_refused(session: Session) -> None:
    gpu = CONFIG.model_copy(update={"execution": FLOAT32.model_copy(update={"device": "cuda"})})
    for config, there in ((CONFIG, session.num_cpus), (gpu, session.num_gpus)):
        options = ServerOptions(port=free_port(), replicas=int(there) + 1)
        with (
            pytest.raises(InputError, match=f"of (the cluster's|its) {there:g} "),
            running_service(config, options),
        ):
            pass


def test_answers_are_the_rows_of_labelling(
    client: httpx.Client, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    config = LabellingConfig(sample=60)
    plan = make_plan(Request(str(images), str(out), None, None, config, FLOAT32))
    label(
        plan,
        LocalEngine(plan.store.uri, plan.source.reference, 1, 10.0),
        1.0,
        lambda progress: None,
    )
    rows = pq.read_table(out / "predictions").to_pylist()
    assert len({row["label"] for row in rows}) > 2  # swapped answers would be seen
    for start in range(0, len(rows), 20):
        part = rows[start : start + 20]
        files = [("image", (images / row["key"]).read_bytes()) for row in part]
        answer = client.post("/v1/predict", files=files).json()
        for row, result in zip(part, answer["results"], strict=True):
            assert answer["model"] == row["model"]
            same = ("status", "error", "width", "height", "label", "label_id")
            assert {name: result[name] for name in same} == {name: row[name] for name in same}
            if row["status"] == "ok":
                assert result["confidence"] == pytest.approx(row["confidence"], abs=1e-5)


def test_broken_files_get_the_statuses_of_labelling(client: httpx.Client) -> None:
    files = [("image", data) for data in BROKEN.values()]
    results = client.post("/v1/predict", files=files).json()["results"]
    assert [result["status"] for result in results] == ["empty", "not_an_image", "not_an_image"]


def test_a_serve_that_runs_there_already_is_left_alone(client: httpx.Client) -> None:
    with (
        pytest.raises(InputError, match="Serve already runs"),
        running_service(CONFIG, ServerOptions(port=free_port())),
    ):
        pass
    assert client.get("/readyz").json() == {"status": "ready"}


def test_every_door_of_serve_is_on_loopback(service: RunningService, client: httpx.Client) -> None:
    assert client.get("/readyz").json() == {"status": "ready"}
    here = psutil.Process()
    listening = {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in (here, *here.children(recursive=True))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert (LOOPBACK, int(service.url.rpartition(":")[2])) in listening
    assert {ip for ip, _ in listening} <= {LOOPBACK, "::1"}


def test_the_page_comes_with_its_policy_through_serve(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def ok_images(client: httpx.Client) -> float:
    text = client.get("/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("cifar_ray_images_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'status="ok"' in line)


def test_a_replica_that_dies_takes_only_the_requests_in_its_hands(
    client: httpx.Client, images: Path
) -> None:
    data = next(images.glob("*.jpg")).read_bytes()
    assert len(replicas()) == REPLICAS
    before = {process.pid for process in replicas()}
    done = threading.Semaphore(0)
    victim_dead = threading.Event()

    def ask(_: int) -> tuple[int, str]:
        try:
            answer = client.post("/v1/predict", files={"image": data})
        except httpx.TransportError as error:
            return 0, type(error).__name__
        finally:
            done.release()
        return answer.status_code, answer.text

    def kill_one() -> None:
        for _ in range(40):
            done.acquire()
        replicas()[0].kill()
        victim_dead.set()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        answers = list(threads.map(ask, range(240)))
    killer.join()
    assert victim_dead.is_set()
    codes = Counter(code for code, _ in answers)
    assert set(codes) <= {200, 500, 503}, codes
    assert 240 - codes[200] <= CONNECTIONS, codes
    for code, text in answers:
        if code != 200:
            assert "Traceback" not in text
            assert ".py" not in text
    wait_for_replicas(client, before)


def wait_for_replicas(client: httpx.Client, before: set[int]) -> None:
    """Wait until there is a new replica, and it answers."""
    while len({process.pid for process in replicas()} - before) < 1 or len(replicas()) < REPLICAS:
        client.get("/healthz")
    assert client.get("/readyz").status_code == 200


def test_counts_are_those_of_all_replicas_and_never_fall(
    client: httpx.Client, images: Path
) -> None:
    data = next(images.glob("*.jpg")).read_bytes()
    before = ok_images(client)
    for _ in range(20):
        client.post("/v1/predict", files={"image": data})
    # Each replica tells what it counted with its next health check.
    while (after := ok_images(client)) < before + 20:
        assert after >= before
    assert after == before + 20


def test_ctrl_c_ends_the_verb_and_leaves_no_process(tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "cifar_ray", "serve", "--port", str(port)],
        cwd=REPOSITORY,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("Ctrl-C"):
            break
    assert f"Page      http://{LOOPBACK}:{port}/\n" in said, said
    assert httpx.get(f"http://{LOOPBACK}:{port}/readyz", timeout=60).status_code == 200
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    rest = process.communicate()[1]
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    assert not any(child.is_running() for child in children)
