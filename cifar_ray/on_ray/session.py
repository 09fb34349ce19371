"""A Ray for the length of a `with` block: a cluster that is there, or one embedded in this process.

The embedded Ray is shut to everybody else:
- It has a token of its own, in a file that only this user can read. Every gRPC and job port of it
  refuses a client without the token.
- Its folder, with logs and Unix sockets, is private to this user, and goes when the session ends.
- All its ports are bound to loopback. On Linux Ray 2.60 takes the network card's address instead
  (`_node_ip_address="127.0.0.1"` too is turned into it), unless it is told that this machine forms
  no cluster with others, which is what it assumes by itself on macOS and Windows.
What remains open, on loopback and to read only: Ray's pages with metrics in Prometheus' format
(of monitor, dashboard and agent), which ask for no token.
"""

import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._raylet import AuthenticationTokenLoader, GcsClient  # type: ignore[attr-defined]

from cifar_ray.config.machine import usable_cores
from cifar_ray.errors import InputError, Unfinished
from cifar_ray.on_ray.adjusting import environment, init, known_ports, on_loopback, quiet

OBJECT_STORE_BYTES = 256 * 2**20
"""Shards' names and results cross it, no pixel does."""
MAX_STARTS = 3
CONNECT_TIMEOUT_S = 10.0
SHUTDOWN_TIMEOUT_S = 5.0
POLL_S = 0.02
MAX_FOLDER_CHARACTERS = 40
"""Of the system's temporary folder: a Unix socket's path below it may have some 100 in all."""
PATIENT = {
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_worker_register_timeout_seconds": "180",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
}
"""On a busy machine Ray's processes take longer to start than it waits for by default."""
_MODE, _TOKEN, _TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


@dataclass(frozen=True, slots=True)
class Session:
    """A Ray that this process is connected to."""

    address: str
    num_cpus: float
    """Of all nodes that are there now."""
    num_gpus: float
    dashboard_url: str | None
    """HOST:PORT of the dashboard, where there is one."""
    metrics_address: str | None = None
    """HOST:PORT that Prometheus may ask, of this machine's node."""
    token_path: str | None = None
    grows: bool = False
    """It is not this process's own: nodes may join it while a run goes on."""


@contextmanager
def ray_session(
    address: str | None = None, num_cpus: int | None = None, dashboard: bool = False
) -> Iterator[Session]:
    """Connect to the cluster at `address` or `RAY_ADDRESS`; without either, or with `local`, start
    a Ray with `num_cpus` (default: all usable cores) that ends with the block.

    Within another session's block it is that session. Raises `InputError` for a cluster that
    cannot be reached, or that refuses us.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if ray.is_initialized():
        yield _describe(_others_dashboard())
        return
    with quiet():
        if address == "local":
            with _embedded(num_cpus or usable_cores(), dashboard) as session:
                yield session
        else:
            with _connected(address) as session:
                yield session


@contextmanager
def _embedded(num_cpus: int, dashboard: bool) -> Iterator[Session]:
    with tempfile.TemporaryDirectory(
        prefix="cifar-ray-", dir=_short_folder(), ignore_cleanup_errors=True
    ) as folder:
        token_path = Path(folder) / "token"
        _write_private(token_path, secrets.token_hex(32))
        variables = {_MODE: "token", _TOKEN: None, _TOKEN_PATH: str(token_path)}
        with environment({**variables, **PATIENT}), on_loopback(), known_ports():
            # Ray opens its own folder to everybody; the one around it stays shut.
            own_folder = Path(folder) / "ray"
            try:
                context = _start(num_cpus, dashboard, own_folder)
                yield _describe(context.dashboard_url if dashboard else None)
            finally:
                _shut_down(own_folder)


def _start(num_cpus: int, dashboard: bool, folder: Path) -> Any:
    """Start a Ray; `Unfinished` if this machine is too busy for it."""
    for _ in range(MAX_STARTS):
        try:
            return init(
                address="local",
                num_cpus=num_cpus,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                _temp_dir=str(folder),
            )
        except Exception as error:
            # Ray has no class for it, waits for 30 s whatever the load, and leaves what it started.
            if "timed out during startup" not in str(error):
                raise
            _shut_down(folder)
    raise Unfinished(
        f"Ray did not start in {MAX_STARTS} attempts: this machine is too busy. Give the same "
        "command again later, or with --local, which needs no Ray."
    )


def _shut_down(folder: Path) -> None:
    """End the Ray that keeps its files in `folder`, and wait for it.

    Ray's agents, left to themselves, may go on for a minute after all others have ended.
    """
    started = _processes(folder)
    ray.shutdown()
    for process in still_alive(started, SHUTDOWN_TIMEOUT_S):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    still_alive(started, SHUTDOWN_TIMEOUT_S)


def still_alive(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait for processes to end; return those that have not.

    One that has ended counts as ended, reaped or not: orphans go to process 1, and that of many
    containers reaps nobody.
    """
    until = time.monotonic() + timeout_s
    while alive := [process for process in processes if _lives(process)]:
        if time.monotonic() > until:
            break
        time.sleep(POLL_S)
    return alive


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _processes(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):  # ended since
            if str(folder) in str(process.cmdline()):
                found += [process, *process.children(recursive=True)]
    return found


@contextmanager
def _connected(address: str) -> Iterator[Session]:
    with environment(_token_mode(address)):
        if address != "auto":
            _knock(address)
        try:
            context = init(address=address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _unusable(address, str(error).strip().splitlines()[0]) from error
        try:
            yield _describe(context.dashboard_url or None)
        finally:
            ray.shutdown()


@contextmanager
def client_token(address: str) -> Iterator[None]:
    """Let Ray's clients that are made within the block send this user's token, if there is one.

    Raises `InputError` if the token's file cannot be read.
    """
    with environment(_token_mode(address)):
        yield


def _token_mode(address: str) -> dict[str, str | None]:
    """Return what makes Ray send the user's token; with an explicit address it would not look."""
    if _MODE in os.environ:
        return {}
    try:
        has_token = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    except ray.exceptions.AuthenticationError as error:
        raise _refused(address, error) from error
    return {_MODE: "token"} if has_token else {}


def _knock(address: str) -> None:
    """Find out at once what would take `ray.init` up to a quarter of an hour to give up on."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "://" in address:
        raise InputError(
            f"--address {address}: give the HOST:PORT of the head of a cluster that this machine "
            "is a node of, or `auto`."
        )
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
        GcsClient(address=address, cluster_id=None)
    except ray.exceptions.AuthenticationError as error:
        raise _refused(address, error) from error
    except (OSError, OverflowError, ray.exceptions.RpcError) as error:
        raise _unusable(address, str(error)) from error


def _refused(address: str, error: ray.exceptions.AuthenticationError) -> InputError:
    return InputError(
        f"The Ray cluster at {address} wants its token: {error.message}. Name the token's file "
        f"with {_TOKEN_PATH}, and set {_MODE}=token."
    )


def _unusable(address: str, reason: str) -> InputError:
    return InputError(
        f"Cannot use the Ray cluster at {address}: {reason.rstrip('.')}. Start one with "
        "`ray start --head`, or leave --address (and RAY_ADDRESS) away."
    )


def _describe(dashboard_url: str | None) -> Session:
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Session(
        address=ray.get_runtime_context().gcs_address,
        num_cpus=resources.get("CPU", 0.0),
        num_gpus=resources.get("GPU", 0.0),
        dashboard_url=dashboard_url,
        metrics_address=_metrics_address(),
        token_path=os.environ.get(_TOKEN_PATH),
        grows=not _is_own(),
    )


def node_cpus() -> list[float]:
    """Return the cores of each node that is there now."""
    return [resources.get("CPU", 0.0) for resources in node_resources()]


def node_resources() -> list[dict[str, float]]:
    """Return the resources of each node that is there now, by Ray's names for them."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _is_own() -> bool:
    """Tell whether this process has started the Ray that it is connected to."""
    node = _node()
    return node is not None and node.is_head()


def _others_dashboard() -> str | None:
    """Return the dashboard of a cluster that others have started."""
    node = _node()
    return None if node is None or node.is_head() else node.address_info["webui_url"] or None


def _node() -> Any:
    """Return what Ray knows of the node that this process is connected to."""
    return ray._private.worker.global_worker.node


def _metrics_address() -> str | None:
    node = _node()
    return None if node is None else f"{node.node_ip_address}:{node.metrics_export_port}"


def _short_folder() -> str | None:
    short = os.name != "posix" or len(tempfile.gettempdir()) <= MAX_FOLDER_CHARACTERS
    return None if short else "/tmp"


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
