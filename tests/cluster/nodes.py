"""A cluster of several nodes on this machine, as its documentation starts one: with `ray start`."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import requests

from tests.cluster.conftest import REPOSITORY, environment

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
START_TIMEOUT_S = 300
MAX_STARTS = 3
OBJECT_STORE_BYTES = 80 * 2**20


def free_ports(number: int) -> list[int]:
    """Return ports outside of those that Ray gives to its workers."""
    found: list[int] = []
    candidate = 20_000 + os.getpid() % 10_000
    while len(found) < number:
        candidate += 1
        with socket.socket() as door, suppress(OSError):
            door.bind(("127.0.0.1", candidate))
            found.append(candidate)
    return found


class Nodes:
    """A head without work, and workers; all have one token, in a file of this user's."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self.variables = dict(variables or {})
        # Short: the paths of Unix sockets lie below it.
        self.folder = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp"))
        self.token = self.folder / "token"
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(32))
        self.gcs, self.dashboard, self.metrics, agent, client = free_ports(5)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ports = (agent, client)

    def __enter__(self) -> "Nodes":
        """Start the head; a busy machine may take more than one attempt."""
        for attempt in range(MAX_STARTS):
            try:
                self._start_head()
            except RuntimeError:
                self._end_all()
                if attempt == MAX_STARTS - 1:
                    raise
            else:
                return self
        raise AssertionError("returned or raised before")

    def __exit__(self, *_: object) -> None:
        """End all nodes."""
        self._end_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_head(self) -> None:
        agent, client = self.ports
        self._start(
            "--head",
            f"--port={self.gcs}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self.dashboard}",
            f"--dashboard-agent-listen-port={agent}",
            f"--metrics-export-port={self.metrics}",
            f"--ray-client-server-port={client}",
            f"--temp-dir={self.folder / 'ray'}",
            "--num-cpus=0",
        )
        self._wait(lambda: self.get("/api/version").ok and bool(self.ids()))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of somebody who has the token."""
        return environment() | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "200",
            "RAY_agent_register_timeout_ms": "120000",
            "RAY_worker_register_timeout_seconds": "180",
            # `python` of a job is the first one on the path.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            **self.variables,
            **more,
        }

    def get(self, page: str, token: str | None = None) -> requests.Response:
        token = self.token.read_text() if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.get(self.url + page, headers=headers, timeout=60)

    def add(self, num_cpus: int = 1, num_gpus: int = 0, **more: str) -> subprocess.Popen[bytes]:
        """Start a worker node, with more in its environment; wait until the cluster knows it.

        Ray believes in the GPUs that it is told of.
        """
        # By name: one that was warned may end meanwhile.
        before = self.ids()
        (agent,) = free_ports(1)
        node = self._start(
            f"--address={self.head_address()}",
            f"--num-cpus={num_cpus}",
            f"--num-gpus={num_gpus}",
            f"--dashboard-agent-listen-port={agent}",
            **more,
        )
        self._wait(lambda: bool(self.ids() - before))
        return node

    def ids(self) -> set[str]:
        """Return the ids of the nodes that the cluster holds to be alive."""
        return {node["id"] for node in self.nodes()}

    def head_address(self) -> str:
        return f"{self.nodes()[0]['ip']}:{self.gcs}"

    def nodes(self) -> list[dict[str, str]]:
        """Return the nodes that the cluster holds to be alive, the head first."""
        found = self.get("/nodes?view=summary").json()["data"]["summary"]
        alive = [node["raylet"] for node in found if node["raylet"].get("state") == "ALIVE"]
        rows = [
            {
                "id": node["nodeId"],
                "ip": node["nodeManagerAddress"],
                "head": str(node.get("isHeadNode", False)),
            }
            for node in alive
        ]
        return sorted(rows, key=lambda row: row["head"] != "True")

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """End a node as a power cut does, with all its processes."""
        processes = []
        with suppress(psutil.NoSuchProcess):
            processes = psutil.Process(node.pid).children(recursive=True)
        node.kill()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()
        self.processes.remove(node)

    def _end_all(self) -> None:
        for node in reversed(list(self.processes)):
            self.kill(node)
        # What a `ray start` that failed has left behind.
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if str(self.folder) in str(process.cmdline()):
                    process.kill()

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run `cifar-ray` as somebody who has the token."""
        return subprocess.run(
            [sys.executable, "-m", "cifar_ray", *arguments],
            cwd=REPOSITORY,
            env=self.environment(**more),
            capture_output=True,
            text=True,
        )

    def _start(self, *options: str, **more: str) -> subprocess.Popen[bytes]:
        command = [*RAY, "start", "--block", "--disable-usage-stats", *options]
        command += [f"--object-store-memory={OBJECT_STORE_BYTES}"]
        with open(self.folder / f"start-{len(self.processes)}.log", "wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment(**more), stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def _wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a node that starts answers; fail with its log if it ends."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with suppress(requests.RequestException):
                if condition():
                    return
            ended = self.processes[-1].poll() is not None
            if ended or time.monotonic() > deadline:
                logs = [path.read_text() for path in sorted(self.folder.glob("*.log"))]
                raise RuntimeError("\n".join(["the node did not start:", *logs]))
            psutil.wait_procs([psutil.Process(self.processes[-1].pid)], timeout=0.2)
