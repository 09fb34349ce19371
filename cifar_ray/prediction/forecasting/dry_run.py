"""What a run would read, skip and write, and how long it would take, without writing anything."""

import time
from functools import partial

from cifar_ray.config.frozen import FrozenConfig
from cifar_ray.config.labelling import RunOptions
from cifar_ray.models.backends import resolve_execution
from cifar_ray.prediction.classify import Classifying, TakeShard
from cifar_ray.prediction.events import ShardDone
from cifar_ray.prediction.forecasting.survey import survey
from cifar_ray.prediction.forecasting.trial import lay_out, plan_on_trial
from cifar_ray.prediction.parallel import in_parallel
from cifar_ray.prediction.part import committed, read_footer
from cifar_ray.prediction.plan import Prepared, Request, first_entries, prepare
from cifar_ray.prediction.receipt import read_receipt
from cifar_ray.prediction.sources import Entry
from cifar_ray.prediction.suitability import doubt_warning
from cifar_ray.prediction.worker import equip
from cifar_ray.runs import LabellingRun, ShardName

ROW_BYTES = 160
"""A row in a part, compressed; keys of ordinary length, five scores."""
TRIAL = ShardName(0, 0)


class Preview(FrozenConfig):
    """What `--dry-run` says."""

    model: str
    classes: str
    found: int
    skipped: dict[str, int]
    listed: int
    image_bytes: int
    parts: int
    parts_done: int
    """In DEST, by the run that this command would go on with."""
    images_done: int
    complete: bool
    """That run is sealed: there is nothing to do."""
    output_bytes: int
    seconds: float
    """For what is left."""
    basis: str
    warnings: tuple[str, ...]


def dry_run(request: Request, options: RunOptions, num_cores: int) -> Preview:
    """Check all that a run checks, list SOURCE, label its first images elsewhere, extrapolate.

    Raises `InputError` where the run would.
    """
    prepared = prepare(request)
    spec, store = prepared.bundle.spec, prepared.store
    source = prepared.source()
    seen = survey(source, request.config.images_per_shard)
    parts_done, images_done = _done(prepared)
    complete = prepared.existing is not None and read_receipt(store) is not None
    left = 0 if complete else max(0, seen.listed - images_done)
    seconds, basis, warnings = 0.0, "nothing is left", _known_warnings(prepared)
    if left:
        first = prepared.first or first_entries(source)
        seconds_an_image, measured, warnings = _measure(prepared, first)
        threads = resolve_execution(request.execution, spec).threads
        here = max(1, num_cores // threads)
        workers = options.workers or here
        at_once = workers if options.address else min(workers, here)
        seconds = left * seconds_an_image / at_once
        basis = f"from {measured} images on one worker, for {workers}"
        if at_once < workers:
            basis += f" on {num_cores} cores"
    return Preview(
        model=prepared.bundle.id,
        classes=", ".join(spec.labels[:10]) + (" …" if len(spec.labels) > 10 else ""),
        found=seen.found,
        skipped=dict(sorted(seen.skipped.items())),
        listed=seen.listed,
        image_bytes=seen.image_bytes,
        parts=len(seen.shards),
        parts_done=parts_done,
        images_done=images_done,
        complete=complete,
        output_bytes=seen.listed * ROW_BYTES,
        seconds=seconds,
        basis=basis,
        warnings=warnings,
    )


def _done(prepared: Prepared) -> tuple[int, int]:
    """Return how many parts of the run there are, and their rows."""
    existing = prepared.existing
    if existing is None:
        return 0, 0
    shards = sorted(committed(prepared.store))
    footers = (footer for _, footer in in_parallel(partial(read_footer, prepared.store), shards))
    rows = [f.rows for f in footers if f is not None and f.run == existing.digest]
    return len(rows), sum(rows)


def _known_warnings(prepared: Prepared) -> tuple[str, ...]:
    return prepared.existing.warnings if prepared.existing else ()


def _measure(prepared: Prepared, first: list[Entry]) -> tuple[float, int, tuple[str, ...]]:
    """Label the first images once to warm up and once by the clock; seconds an image."""
    bundle = prepared.bundle
    with plan_on_trial(prepared.request, prepared.reference, bundle, first) as plan:
        lay_out(plan, TRIAL, first)
        equipment = equip(plan.store, plan.source.reference)
        for _ in range(2):
            plan.store.delete(LabellingRun.PREDICTIONS)
            started = time.monotonic()
            events = list(Classifying(equipment, _one_by_one([TRIAL])).run())
            seconds = time.monotonic() - started
        rows = sum(event.footer.rows for event in events if isinstance(event, ShardDone))
        doubt = doubt_warning(plan.store, TRIAL, plan.record, bundle.spec) if rows else None
    return seconds / max(1, rows), rows, (*plan.record.warnings, *([doubt] if doubt else []))


def _one_by_one(shards: list[ShardName]) -> TakeShard:
    return lambda wait: shards.pop() if shards else None
