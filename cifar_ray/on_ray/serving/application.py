"""The service as an application of Ray Serve: replicas that each hold all models, and their counts.

    HTTP -> Serve's proxy -> a replica (`cifar_ray/serving/app.py`), which decodes, batches, answers

Images never pass between processes once a replica has them: a replica batches its own requests,
where `serve.batch` would make each of them wait for company, and would know one batch size only.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from cifar_ray.config.serving import ServiceConfig
from cifar_ray.on_ray.serving.counts import Counts
from cifar_ray.on_ray.serving.doors import listen_on_node_address
from cifar_ray.serving.app import create_app
from cifar_ray.serving.metrics import Snapshot
from cifar_ray.serving.service import Service

NAME = "cifar-ray"
REPLICA, COUNTS = "Replica", "Counts"
ROOM_TO_REFUSE = 2
"""A replica takes so many times the requests that it works on: the rest it can answer with 429."""
MAX_QUEUED_REQUESTS = 1000
HEALTH_CHECK_PERIOD_S = 10
GRACEFUL_SHUTDOWN_S = 5


@serve.ingress()
class Replica:
    """One process with all models of the service."""

    def __init__(self, config: str, counts: "DeploymentHandle[Any]") -> None:
        """Load the models of a `ServiceConfig`, given as JSON."""
        listen_on_node_address()
        self.service = Service(ServiceConfig.model_validate_json(config))
        self.counts = counts

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self.service, self._all_counts)

    async def _all_counts(self) -> Sequence[Snapshot]:
        replica = serve.get_replica_context().replica_id.unique_id
        snapshots: list[Snapshot] = await self.counts.add.remote(
            replica, self.service.metrics.snapshot()
        )
        return snapshots

    async def check_health(self) -> None:
        """Tell what was counted, and ask for a new replica if a model fails or a thread hangs."""
        if not self.service.healthy:
            raise RuntimeError("a model or a decoder does not answer")
        await self._all_counts()


def replica_resources(config: ServiceConfig) -> dict[str, int]:
    """Return what Ray must have free for each replica, under the names of an actor's options."""
    gpus = {"num_gpus": 1} if config.execution.device == "cuda" else {}
    return {"num_cpus": config.execution.threads, **gpus}


def build(config: ServiceConfig, replicas: int = 1) -> serve.Application:
    """Return the application for `serve.run`."""
    replica: Any = serve.deployment(
        Replica,
        name=REPLICA,
        num_replicas=replicas,
        max_ongoing_requests=ROOM_TO_REFUSE * config.limits.requests,
        max_queued_requests=MAX_QUEUED_REQUESTS,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        graceful_shutdown_timeout_s=GRACEFUL_SHUTDOWN_S,
        ray_actor_options=replica_resources(config),
    )
    counts: Any = serve.deployment(Counts, name=COUNTS, ray_actor_options={"num_cpus": 0})
    application: serve.Application = replica.bind(config.model_dump_json(), counts.bind())
    return application


def from_arguments(arguments: dict[str, Any]) -> serve.Application:
    """Build the application for a Serve config file, whose `args` are a `ServiceConfig`'s fields.

    Replicas, and what else concerns the deployment, stand under the file's `deployments`.
    """
    return build(ServiceConfig.model_validate(arguments))
