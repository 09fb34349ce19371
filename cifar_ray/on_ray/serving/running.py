"""Runs the service for the length of a `with` block."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ray import serve
from ray.serve._private import api
from ray.serve.context import _check_cached_client_alive, _get_global_client
from ray.serve.schema import LoggingConfig

from cifar_ray.config.addresses import in_url
from cifar_ray.config.machine import usable_cores
from cifar_ray.config.serving import ServerOptions, ServiceConfig
from cifar_ray.errors import InputError
from cifar_ray.on_ray.adjusting import replaced
from cifar_ray.on_ray.serving.application import NAME, build, replica_resources
from cifar_ray.on_ray.session import Session, ray_session

START_TIMEOUT_S = 600
"""For Serve's HTTP proxy, which on a busy machine needs longer than Serve's minute."""
_OURS = "InputError: "


@dataclass(frozen=True, slots=True)
class RunningService:
    """A service that answers."""

    url: str
    session: Session


@contextmanager
def running_service(config: ServiceConfig, options: ServerOptions) -> Iterator[RunningService]:
    """Start the service, on a Ray of its own or on the cluster at `options.address`.

    The block is entered when all models answer. Raises `InputError` if the port is taken, the
    cluster has too little for the replicas or a Ray Serve already, or a model does not serve.
    """
    _refuse_taken_port(options)
    num_cpus = max(usable_cores(), options.replicas * config.execution.threads)
    with ray_session(options.address, num_cpus) as session:
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        _refuse_without_room(replica_resources(config), options.replicas, session)
        _refuse_running_serve()
        try:
            _start(config, options)
            yield RunningService(f"http://{in_url(options.host)}:{options.port}", session)
        finally:
            _end()


def _start(config: ServiceConfig, options: ServerOptions) -> None:
    with replaced(api, "HTTP_PROXY_TIMEOUT", START_TIMEOUT_S):
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": options.host, "port": options.port},
            logging_config=LoggingConfig(log_level="ERROR", enable_access_log=False),
        )
    try:
        serve.run(build(config, options.replicas), name=NAME)
    except RuntimeError as error:
        reason = _reason()
        if reason is None:
            raise
        raise InputError(reason) from error


def _end() -> None:
    """Take the service away, and Serve with it unless others have come to use it."""
    alive, _ = _check_cached_client_alive()
    if alive and serve.status().applications.keys() - {NAME}:
        serve.delete(NAME)
    else:
        serve.shutdown()  # type: ignore[no-untyped-call]


def _reason() -> str | None:
    """Return what a replica said when it refused to start, if that was a message of ours."""
    application = serve.status().applications.get(NAME)
    deployments = application.deployments.values() if application else ()
    said = [line for deployment in deployments for line in deployment.message.splitlines()]
    ours = [line.partition(_OURS)[2] for line in said if _OURS in line]
    return ours[-1] if ours else None


def _refuse_without_room(needs: dict[str, int], replicas: int, session: Session) -> None:
    """Refuse what Ray would wait for, for ever and without a word."""
    there = {"num_cpus": session.num_cpus, "num_gpus": session.num_gpus}
    if any(replicas * number > there[name] for name, number in needs.items()):
        raise InputError(
            f"--replicas {replicas}: each needs {needs['num_cpus']} of the cluster's "
            f"{session.num_cpus:g} CPUs"
            + (f" and one of its {session.num_gpus:g} GPUs" if "num_gpus" in needs else "")
            + ". Take fewer replicas, or another --device."
        )


def _refuse_running_serve() -> None:
    """Keep away from a Serve of others: it would go on listening where it does."""
    if _get_global_client(raise_if_no_controller_running=False) is not None:
        raise InputError(
            "Ray Serve already runs on this cluster, with a port and applications of its own. "
            "Leave --address (and RAY_ADDRESS) away, or end it first if it is yours: "
            "`serve shutdown`."
        )


def _refuse_taken_port(options: ServerOptions) -> None:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except OSError as error:
            raise InputError(
                f"Cannot listen on {options.host}, port {options.port}: {error.strerror}. "
                "Give another --port, or an address of this machine as --host."
            ) from error
