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

import inspect
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import ray
from ray._private import ray_constants, services
from ray._raylet import (  # type: ignore[attr-defined]
    AuthenticationTokenLoader,
    Config,
    GcsClient,
)
from ray.job_config import JobConfig
from ray.util.annotations import RayDeprecationWarning

from cifar_ray.config.machine import usable_cores
from cifar_ray.errors import InputError, Unfinished

OBJECT_STORE_BYTES = 256 * 2**20
"""Shards' names and results cross it, no pixel does."""
MAX_STARTS = 3
CONNECT_TIMEOUT_S = 10.0
SHUTDOWN_TIMEOUT_S = 5.0
POLL_S = 0.02
MAX_FOLDER_CHARACTERS = 40
"""Of the system's temporary folder: a Unix socket's path below it may have some 100 in all."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # What Ray Data's statistics trip over when the machine is busy.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # Ray's announcement of how it will treat actors that ask for no GPU.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # What its C++ parts say on our terminal is for Ray's own makers.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_SERVE_LOG_TO_STDERR": "0",
}
PATIENT = {
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_worker_register_timeout_seconds": "180",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
}
"""On a busy machine Ray's processes take longer to start than it waits for by default."""
AGENT_PORTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
    "dashboard_agent_listen_port",
)
"""What the raylet learns from files in the session's folder, named after these."""
logger = logging.getLogger(__name__)
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
        yield _describe(None)
        return
    with _quiet():
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
        with _environment({**variables, **PATIENT}), _on_loopback(), _known_ports():
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
            return _init(
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
    with _environment(_token_mode(address)):
        if address != "auto":
            _knock(address)
        try:
            context = _init(address=address)
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
    with _environment(_token_mode(address)):
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


class _OwnPath(list[str]):
    """What Ray puts on its workers' path: nothing that is not on this process's own.

    It adds the current folder, which may be the images', and hold anybody's code.
    """

    def extend(self, folders: Iterable[str]) -> None:
        super().extend(folder for folder in folders if folder in sys.path)


def _init(**settings: Any) -> Any:
    """Run `ray.init` without what it says, and without its own handler for SIGTERM."""
    handler = signal.getsignal(signal.SIGTERM)
    job = JobConfig()
    job._py_driver_sys_path = _OwnPath()
    with _shut_stderr():
        context = ray.init(
            log_to_driver=False, logging_level=logging.ERROR, job_config=job, **settings
        )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
    return context


@contextmanager
def _shut_stderr() -> Iterator[None]:
    """Let nothing through, not even from C++; what starts within does not hold it open either."""
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _describe(dashboard_url: str | None) -> Session:
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Session(
        address=ray.get_runtime_context().gcs_address,
        num_cpus=resources.get("CPU", 0.0),
        num_gpus=resources.get("GPU", 0.0),
        dashboard_url=dashboard_url,
        metrics_address=_metrics_address(),
        token_path=os.environ.get(_TOKEN_PATH),
    )


def _metrics_address() -> str | None:
    node = ray._private.worker.global_worker.node
    return None if node is None else f"{node.node_ip_address}:{node.metrics_export_port}"


def _short_folder() -> str | None:
    short = os.name != "posix" or len(tempfile.gettempdir()) <= MAX_FOLDER_CHARACTERS
    return None if short else "/tmp"


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


@contextmanager
def _environment(variables: dict[str, str | None]) -> Iterator[None]:
    """Set environment variables, or unset them with None, and let Ray look at them again."""
    before = {name: os.environ.get(name) for name in variables}
    _set_environment(variables)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # Ray has read mode and token when it was imported, and keeps them.
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that starts within take 127.0.0.1 for its node's address."""
    with (
        replaced(ray_constants, "ENABLE_RAY_CLUSTER", False),
        _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}),
    ):
        yield


@contextmanager
def _known_ports() -> Iterator[None]:
    """Let a Ray that starts within know from the beginning where its agents will listen.

    Left to itself its raylet waits for them to say so in files, 15 s that no setting changes, and
    ends if this machine is too busy to start them in that time.
    """
    start = services.start_raylet
    signature = inspect.signature(start)

    def start_raylet(*args: Any, **options: Any) -> Any:
        ports = dict(zip(AGENT_PORTS, _free_ports(len(AGENT_PORTS)), strict=True))
        call = signature.bind(*args, **options)
        call.arguments.update(ports)
        folder, node = Path(call.arguments["session_dir"]), call.arguments["node_id"]
        for name, port in ports.items():
            (folder / f"{name}_{node}").write_text(str(port))
        return start(*call.args, **call.kwargs)

    with replaced(services, "start_raylet", start_raylet):
        yield


def _free_ports(number: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Change what Ray has no setting for, within the block."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def _quiet() -> Iterator[None]:
    # For good: Ray's threads may warn at any time.
    warnings.filterwarnings("ignore", module=r"ray\.")
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)
    with (
        _environment({**QUIET}),
        replaced(ray._private.worker, "print_to_stdstream", _log_message),
    ):
        yield


def _log_message(message: dict[str, Any], **_: object) -> None:
    """Take what Ray has to say of lost workers, which it would print among our output."""
    logger.info("\n".join(message["lines"]))
