"""What a run on a cluster computes with: its nodes settle it, for the head may have no GPU."""

from collections.abc import Callable

import ray

from cifar_ray.config.execution import Execution, ExecutionRequest
from cifar_ray.errors import InputError
from cifar_ray.models.backends import resolve_execution
from cifar_ray.models.bundle_spec import BundleSpec
from cifar_ray.on_ray.session import Session, ray_session

SHARE = 0.01
"""Of a core or a GPU, for a look at its node."""


def resolve_on_cluster(
    address: str, tell: Callable[[str], None], request: ExecutionRequest, spec: BundleSpec
) -> Execution:
    """Decide what the request leaves open, as a node decides it that may get the run's workers.

    `tell` hears of a wait for such a node. Raises `InputError` for what the node cannot do.
    """
    with ray_session(address) as session:
        on_gpu = takes_gpus(session, request.device)
        if not (session.num_gpus if on_gpu else session.num_cpus):
            tell(f"Waiting for a node with a {'GPU' if on_gpu else 'core'}: the cluster has none.")
        if not on_gpu:
            request = request.model_copy(update={"device": "cpu"})
        task = _resolve.options(num_cpus=SHARE, num_gpus=SHARE if on_gpu else 0)
        answer: Execution | str = ray.get(task.remote(request, spec))
    if isinstance(answer, str):
        raise InputError(answer)
    return answer


def training_device(address: str, requested: str, workers: int) -> str:
    """Return `cuda` or `cpu`; with `auto` GPUs, if the cluster has one for each worker now."""
    with ray_session(address) as session:
        return "cuda" if takes_gpus(session, requested, workers) else "cpu"


def takes_gpus(session: Session, requested: str, at_least: int = 1) -> bool:
    """Tell whether a run computes on GPUs."""
    return requested == "cuda" or (requested == "auto" and session.num_gpus >= at_least)


@ray.remote
def _resolve(request: ExecutionRequest, spec: BundleSpec) -> Execution | str:
    """Return an error's text instead of raising it: Ray would wrap it in one of its own."""
    try:
        return resolve_execution(request, spec)
    except InputError as error:
        return str(error)
