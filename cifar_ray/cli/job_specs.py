"""Between the command line of a verb and the spec of a job that does the same on a cluster."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cifar_ray.errors import InputError

if TYPE_CHECKING:
    from cifar_ray.config.job import Job, PredictJob
    from cifar_ray.config.labelling import RunOptions
    from cifar_ray.on_ray.submitting import Submission, Submitter
    from cifar_ray.prediction.plan import Request
    from cifar_ray.prediction.renewal.history import Reason


@dataclass(slots=True)
class Submit:
    """What `submit` puts into the context of a verb, so that it submits what it would have run."""

    submitter: "Submitter"
    submission: "Submission | None" = None

    def __call__(self, job: "Job") -> None:
        """Submit, and keep what came of it."""
        self.submission = self.submitter.submit(job)


def predict_job(
    request: "Request", options: "RunOptions", again: "Reason | None" = None
) -> "PredictJob":
    """Return the spec of what was asked for; a model's `--weights` are part of what it uploads."""
    from cifar_ray.config.job import PredictJob

    if options.engine == "local":
        raise InputError("A job runs on the cluster's Ray: leave out --local and --engine local.")
    model = request.model
    if request.weights is not None:
        from cifar_ray.models.opening import open_bundle

        model = str(open_bundle(model, request.weights).path)
    return PredictJob(
        source=request.source,
        destination=request.destination,
        model=model,
        config=request.config,
        execution=request.execution,
        options=options.model_copy(update={"engine": "ray", "address": None}),
        fresh=request.fresh,
        source_moved=request.source_moved,
        root=request.root,
        again=again,
    )


def request(job: "PredictJob") -> "Request":
    """Return what the verb makes of its command line."""
    from cifar_ray.prediction.plan import Request

    return Request(
        source=job.source,
        destination=job.destination,
        model=job.model,
        weights=None,
        config=job.config,
        execution=job.execution,
        fresh=job.fresh,
        source_moved=job.source_moved,
        root=job.root,
    )
