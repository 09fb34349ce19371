"""`plan`: a store is walked, a sample of it is labelled on trial, and the whole is extrapolated."""

from collections.abc import Callable
from dataclasses import dataclass

from cifar_ray.config.labelling import SourceReference
from cifar_ray.config.prices import Prices
from cifar_ray.errors import InputError, printable
from cifar_ray.models.backends import resolve_execution
from cifar_ray.models.opening import open_bundle
from cifar_ray.prediction.arrow_alone import keep_pandas_out
from cifar_ray.prediction.child import module_command
from cifar_ray.prediction.forecasting.estimate import Asked, forecast
from cifar_ray.prediction.forecasting.forecast import Forecast
from cifar_ray.prediction.forecasting.survey import survey
from cifar_ray.prediction.forecasting.trial import plan_on_trial, run_trial
from cifar_ray.prediction.plan import (
    Request,
    destination_store,
    first_entries,
    refuse_strangers,
)
from cifar_ray.prediction.sources import find_source, open_source, split_source
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import Store


@dataclass(frozen=True, slots=True)
class Question:
    """What the user wants to know."""

    request: Request
    """Without a destination, nothing is kept."""
    arguments: tuple[str, ...]
    """Of the command line of such a run, without its DEST, workers and limit."""
    workers: int | None = None
    """None: as many as fit here."""
    prices: Prices | None = None
    deadline_hours: float | None = None
    seed: int = 0
    """Of the sample."""


def make_forecast(question: Question, num_cores: int, tell: Callable[[str], None]) -> Forecast:
    """Answer, and keep the answer in DEST; `tell` hears what is begun.

    Raises `InputError` for what cannot be planned, before anything is measured.
    """
    keep_pandas_out()  # as the driver of a run does, whose end this measures
    request = question.request
    reference = find_source(request.source, request.root, request.config)
    store = _empty_store(request.destination, reference) if request.destination else None
    bundle = open_bundle(request.model, request.weights)
    threads = resolve_execution(request.execution, bundle.spec).threads
    source = open_source(split_source(reference, request.config), request.config)
    first = first_entries(source)
    tell("Listing the store.")
    seen = survey(source, request.config.images_per_shard, question.seed)
    sample = seen.sample()
    entries = [entry for stratum in sample.values() for entry in stratum]
    tell(f"Labelling {len(entries)} of {seen.listed:,} images on trial.")
    here = max(1, num_cores // threads)
    workers = question.workers or here
    with plan_on_trial(request, reference, bundle, first) as plan:
        command = module_command("cifar_ray", *question.arguments)
        trial = run_trial(plan, entries, min(workers, here), command)
    place = request.destination or None
    asked = Asked(workers, threads, place, question.prices, question.deadline_hours)
    found = forecast(seen, sample, trial, asked)
    if store is not None:
        store.write(LabellingRun.FORECAST, found.to_bytes())
    return found


def _empty_store(destination: str, source: SourceReference) -> Store:
    store = destination_store(destination, source)
    if store.exists(LabellingRun.RECORD):
        raise InputError(
            f"--out {printable(store.uri)} holds a run already. A plan is kept before a run "
            "begins: leave --out away, or give the place of a new one."
        )
    refuse_strangers(store)
    return store
