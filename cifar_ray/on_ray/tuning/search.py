"""A search on Ray Tune, begun or gone on with: the two are the same but for what is recorded.

Tune is given the trials that have not ended. What has ended, it learns in other ways: proposals
and schedulers are told of it before they are asked for anything.
"""

import logging
import os
import shutil
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.search import Searcher

from cifar_ray.config.search import SearchSpec, planned
from cifar_ray.errors import InputError
from cifar_ray.on_ray.adjusting import replaced
from cifar_ray.on_ray.metrics.search import metered_trials
from cifar_ray.on_ray.session import Session, node_cpus, ray_session
from cifar_ray.on_ray.tuning.events import RecordingCallback
from cifar_ray.on_ray.tuning.parallel import DRIVER_CPUS, parallel_trainable
from cifar_ray.on_ray.tuning.schedulers import make_scheduler
from cifar_ray.on_ray.tuning.trainable import (
    METRIC,
    Place,
    Trainable,
    member_trainable,
    plain_trainable,
    trial_config,
    trial_name,
)
from cifar_ray.runs import SearchRun
from cifar_ray.training.search.proposals import TpeProposals
from cifar_ray.training.search.record import Records

MAX_DEATHS = 2
"""Times that a trial whose process died goes on from its checkpoint."""
CHECKPOINTS_KEPT = 4
"""Of a member of a population: one may still be read by another that takes it over."""
PROPAGATED = {n for n in class_cache.ENV_VARS_TO_PROPAGATE if not n.startswith("AWS_")}
"""Variables that Tune hands to trials. With the user's credentials, as it would have it, they stood
in the log of Ray's agent on each node."""
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C shall reach us.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A trial that ends without an epoch has no accuracy; that would end the whole search.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Its own state, which nobody reads: hardly ever.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def search(records: Records, address: str | None, on_change: Callable[[Records], None]) -> None:
    """Run every trial that has not ended, and leave each one's end in the record.

    `on_change` is called every now and then from the calling thread, and may raise. Wrong input
    and a store that is gone end the search; their trials have not ended then.
    """
    spec, run = records.spec, SearchRun(Path(records.spec.run))
    pending = [n for n in range(spec.num_trials) if not _has_ended(records, n)]
    if not pending:
        return
    os.environ.update(SETTINGS)
    warnings.filterwarnings("ignore", module=r"ray\.")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    with ray_session(address) as session:
        place, at_once = share_out(spec, session, len(pending), max(node_cpus()))
        try:
            with replaced(class_cache, "ENV_VARS_TO_PROPAGATE", PROPAGATED):
                _tuner(records, pending, place, at_once, metered_trials(on_change)).fit()
        finally:
            shutil.rmtree(run.ray, ignore_errors=True)


def _has_ended(records: Records, number: int) -> bool:
    return number in records.trials and records.trials[number].has_ended


def _tuner(
    records: Records,
    pending: list[int],
    place: Place,
    at_once: int,
    on_change: Callable[[Records], None],
) -> tune.Tuner:
    spec, run = records.spec, SearchRun(Path(records.spec.run))
    proposals = TpeProposals(records) if spec.search == "tpe" else None
    return tune.Tuner(
        _trainable(spec, place),
        param_space={} if proposals else _planned_space(records, pending),
        tune_config=tune.TuneConfig(
            # Scheduler and searcher bring their metric themselves.
            scheduler=make_scheduler(records),
            search_alg=ProposalSearcher(records, pending, proposals) if proposals else None,
            num_samples=len(pending) if proposals else 1,
            max_concurrent_trials=at_once if spec.search != "pbt" else None,
            # A driver function's own Ray Train ends only with its process.
            reuse_actors=spec.workers_per_trial == 1,
            trial_name_creator=trial_name,
            trial_dirname_creator=trial_name,
        ),
        run_config=tune.RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(run.ray),
            callbacks=[
                RecordingCallback(
                    records, proposals.learn if proposals else lambda record: None, on_change
                )
            ],
            failure_config=tune.FailureConfig(max_failures=MAX_DEATHS),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
            verbose=0,
        ),
    )


def _trainable(spec: SearchSpec, place: Place) -> Any:
    if place.workers > 1:
        return tune.with_resources(parallel_trainable(spec, place), {"cpu": DRIVER_CPUS})
    make: Callable[[SearchSpec, Place], Trainable] = (
        member_trainable if spec.search == "pbt" else plain_trainable
    )
    return tune.with_resources(make(spec, place), {"cpu": place.num_cpus, "gpu": place.num_gpus})


def _planned_space(records: Records, pending: list[int]) -> dict[str, Any]:
    plan = planned(records.spec)
    known = {number: record.parameters for number, record in records.trials.items()}
    trials = [trial_config(n, known.get(n, plan[n])) for n in pending]
    key = next(iter(trials[0]))
    return {key: tune.grid_search([trial[key] for trial in trials])}


class ProposalSearcher(Searcher):
    """Hands proposals to Tune, for one trial after another."""

    def __init__(self, records: Records, pending: list[int], proposals: TpeProposals) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.records = records
        self.pending = list(pending)
        self.proposals = proposals

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]
        """Return the next trial's config."""
        if not self.pending:
            return Searcher.FINISHED
        number = self.pending.pop(0)
        record = self.records.trials.get(number)
        parameters = self.proposals.propose(number, record.parameters if record else None)
        return trial_config(number, parameters)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: `RecordingCallback` tells the proposals once the record is written."""

    def save(self, checkpoint_path: str) -> None:
        """Leave Tune's checkpoint empty."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: a search goes on from its record."""
        raise NotImplementedError


def share_out(
    spec: SearchSpec, session: Session, num_trials: int, node_cpus: float
) -> tuple[Place, int]:
    """Return what each process of a trial has, and how many trials run at once.

    `node_cpus` are those of the largest node, beyond which no process reaches. While a cluster has
    no node for work, each process asks for one core. Raises `InputError` for more GPUs than there
    are.
    """
    workers = spec.workers_per_trial
    gpus = spec.gpus_per_trial
    if gpus is None:
        gpus = float(workers) if session.num_gpus >= workers else 0.0
    if not session.num_cpus:
        # Nodes come because trials wait for them; what they have, nobody knows yet.
        return Place("cuda" if gpus else "cpu", 1, 1.0, gpus / workers, workers), num_trials
    if gpus > session.num_gpus:
        raise InputError(
            f"--gpus-per-trial {gpus:g}: there are {session.num_gpus:g} GPUs. Take fewer, or 0."
        )
    room = session.num_gpus / gpus + 1e-6 if gpus else session.num_cpus / workers
    at_once = max(1, min(int(room), num_trials))
    drivers = DRIVER_CPUS if workers > 1 else 0.0
    cpus = (session.num_cpus / at_once - drivers) / workers
    cpus = min(cpus, node_cpus)
    whole = float(int(cpus)) if cpus >= 1 else cpus
    place = Place(
        device="cuda" if gpus else "cpu",
        threads=max(1, int(cpus)),
        num_cpus=min(1.0, whole) if gpus else whole,
        num_gpus=gpus / workers,
        workers=workers,
    )
    return place, at_once
