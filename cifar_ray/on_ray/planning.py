"""`plan` on a cluster: a node of it labels the sample, and the whole is extrapolated from that."""

from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import ray

from cifar_ray.errors import CifarRayError, InputError, of_exit_code
from cifar_ray.on_ray.placing import takes_gpus
from cifar_ray.on_ray.session import Session, node_resources, ray_session
from cifar_ray.prediction.forecasting.forecast import Forecast
from cifar_ray.prediction.forecasting.planning import Question, make_forecast

Answer = Forecast | tuple[int, str]
"""Or exit code and message of an error, which Ray would wrap in one of its own."""


def forecast_on_cluster(address: str, question: Question, tell: Callable[[str], None]) -> Forecast:
    """Answer as the largest node that fits would; `tell` hears where it is measured.

    Waits until all cores of such a node are free. Raises what `make_forecast` does.
    """
    with ray_session(address) as session:
        cores, gpus = _largest_node(session, question)
        tell(f"Measuring on a node of the cluster with {cores} cores; waiting until it is free.")
        task = _forecast.options(num_cpus=cores, num_gpus=gpus)
        answer: Answer = ray.get(task.remote(question, cores, Path.cwd()))
    if isinstance(answer, tuple):
        raise of_exit_code(*answer)
    return answer


def _largest_node(session: Session, question: Question) -> tuple[int, int]:
    """Return whole cores and GPUs of the node that is to measure."""
    on_gpu = takes_gpus(session, question.request.execution.device)
    nodes = [(int(n.get("CPU", 0)), int(n.get("GPU", 0))) for n in node_resources()]
    fit = [(cores, gpus if on_gpu else 0) for cores, gpus in nodes if cores and gpus >= on_gpu]
    if not fit:
        wanted = "a GPU" if on_gpu else "a core"
        raise InputError(f"No node of the cluster has {wanted} now, so that none can measure.")
    return max(fit)


@ray.remote
def _forecast(question: Question, cores: int, folder: Path) -> Answer:
    if not folder.is_dir():
        return InputError.exit_code, f"A node of the cluster has no folder {folder}."
    try:
        with chdir(folder):
            return make_forecast(question, cores, lambda text: None)
    except CifarRayError as error:
        return error.exit_code, str(error)
