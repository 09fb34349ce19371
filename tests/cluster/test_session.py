"""The embedded Ray is shut: its doors are tried one by one, without the token and with another."""

import ast
import http.client
import ipaddress
import os
import signal
import socket
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grpc
import psutil
import ray

from cifar_ray.on_ray.session import Session, still_alive
from tests.cluster.conftest import REPOSITORY, environment

METHODS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.ReporterService/HealthCheck",
)
"""One of each gRPC service that Ray's processes offer."""
TIMEOUT_S = 60
CLIENT = """
import os, sys
from cifar_ray.errors import InputError
from cifar_ray.on_ray.session import ray_session

address, wrong = sys.argv[1:]
for mode, token in (("disabled", ""), ("token", wrong)):
    os.environ.update(RAY_AUTH_MODE=mode, RAY_AUTH_TOKEN_PATH=token)
    try:
        with ray_session(address):
            print("connected")
    except InputError as error:
        print("refused" if "wants its token" in str(error) else error)
"""

WAITING = """
import os, signal, sys
import ray
from cifar_ray.on_ray.session import ray_session

try:
    with ray_session("local", num_cpus=1):
        print(os.environ["RAY_AUTH_TOKEN_PATH"], flush=True)
        print(ray.get(ray.remote(lambda: sys.path).remote()), flush=True)
        signal.pause()
except KeyboardInterrupt:
    sys.exit(130)
"""


def doors() -> list[tuple[str, int]]:
    """Return address and port of every socket that Ray listens on, the driver's included."""
    here = psutil.Process()
    return [
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in (here, *here.children(recursive=True))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


def answer(port: int, token: str | None) -> str:
    """Say what a client gets: `refused`, `metrics`, `answered`; `unknown` if it is spoken to in no
    language that it knows."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/api/job_agent/jobs/", headers=headers)
        response = connection.getresponse()
        if response.status in (401, 403):
            return "refused"
        is_metrics = response.read().startswith(b"# HELP")
        return "metrics" if is_metrics else "answered"
    except http.client.BadStatusLine:
        return grpc_answer(port, list(headers.items()))
    finally:
        connection.close()


def grpc_answer(port: int, metadata: list[tuple[str, str]]) -> str:
    codes = set()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in METHODS:
            try:
                channel.unary_unary(method)(b"", timeout=TIMEOUT_S, metadata=metadata)
                codes.add(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                codes.add(error.code())
    known = codes - {grpc.StatusCode.UNIMPLEMENTED}
    if known == {grpc.StatusCode.UNAUTHENTICATED}:
        return "refused"
    return "answered" if known else "unknown"


def test_every_door_is_on_loopback_and_opens_to_the_token_alone(session: Session) -> None:
    ray.get(ray.remote(num_cpus=0)(lambda: None).remote())
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text()
    found = doors()
    assert all(ipaddress.ip_address(ip).is_loopback for ip, _ in found), found
    without = {port: answer(port, None) for _, port in found}
    with_another = {port: answer(port, "0" * len(token)) for _, port in found}
    assert without == with_another
    # Pages with metrics ask for no token: those of Ray's monitor, dashboard process and agent.
    kinds = Counter(without.values())
    assert set(kinds) <= {"refused", "metrics"}, without
    assert kinds["metrics"] <= 3
    assert kinds["refused"] >= 6
    _, _, gcs_port = session.address.rpartition(":")
    assert without[int(gcs_port)] == "refused"
    assert answer(int(gcs_port), token) == "answered"


def test_token_and_folder_are_this_user_s_alone(session: Session) -> None:
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    assert token.parent.stat().st_uid == os.getuid()
    assert Path.home() not in token.parents


def run_client(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, *arguments],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_client_is_refused_without_the_token_and_with_another(
    session: Session, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    assert run_client(session.address, str(wrong)) == ["refused", "refused"]


def test_a_cluster_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0" * 64)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = run_client(address, str(token))
    assert len(said) == 2
    assert all(f"Cannot use the Ray cluster at {address}: " in line for line in said)


def test_a_session_runs_no_code_of_its_folder_and_leaves_no_process_no_token_and_no_folder(
    tmp_path: Path,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", WAITING],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    token = Path(process.stdout.readline().strip())
    assert token.is_file()
    path_of_workers = ast.literal_eval(process.stdout.readline())
    assert path_of_workers
    assert str(tmp_path) not in path_of_workers
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    # As a terminal does, to all of its processes.
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert not any(child.is_running() for child in children)
    assert not token.parent.exists()


def test_a_process_that_nobody_reaps_counts_as_ended() -> None:
    """As Ray's workers stay behind in a container whose process 1 reaps nobody."""
    with subprocess.Popen(["true"]) as ended, subprocess.Popen(["sleep", "60"]) as asleep:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        both = [psutil.Process(process.pid) for process in (ended, asleep)]
        assert both[0].status() == psutil.STATUS_ZOMBIE
        assert still_alive(both, timeout_s=0.1) == both[1:]
        asleep.kill()
        assert still_alive(both, timeout_s=60) == []
