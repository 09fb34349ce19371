"""Ray as we need it where it has no setting: what it says, where it listens, whose code it runs."""

import inspect
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import ray
from ray._private import ray_constants, services
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.job_config import JobConfig
from ray.util.annotations import RayDeprecationWarning

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
AGENT_PORTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
    "dashboard_agent_listen_port",
)
"""What the raylet learns from files in the session's folder, named after these."""
logger = logging.getLogger(__name__)


class _OwnPath(list[str]):
    """What Ray puts on its workers' path: nothing that is not on this process's own.

    It adds the current folder, which may be the images', and hold anybody's code.
    """

    def extend(self, folders: Iterable[str]) -> None:
        super().extend(folder for folder in folders if folder in sys.path)


def init(**settings: Any) -> Any:
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


@contextmanager
def environment(variables: dict[str, str | None]) -> Iterator[None]:
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
def on_loopback() -> Iterator[None]:
    """Let a Ray that starts within take 127.0.0.1 for its node's address."""
    with (
        replaced(ray_constants, "ENABLE_RAY_CLUSTER", False),
        environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}),
    ):
        yield


@contextmanager
def known_ports() -> Iterator[None]:
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
def quiet() -> Iterator[None]:
    """Keep what Ray and its processes say off our terminal."""
    # For good: Ray's threads may warn at any time.
    warnings.filterwarnings("ignore", module=r"ray\.")
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)
    with (
        environment({**QUIET}),
        replaced(ray._private.worker, "print_to_stdstream", _log_message),
    ):
        yield


def _log_message(message: dict[str, Any], **_: object) -> None:
    """Take what Ray has to say of lost workers, which it would print among our output."""
    logger.info("\n".join(message["lines"]))
