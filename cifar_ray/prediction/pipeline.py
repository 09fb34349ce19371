"""A labelling run from its plan to its receipt, with any engine.

plan       run.json: what, with which model, how            (plan.py)
listing    every file in key order                          (listing.py)
manifest   the listing cut into shards                      (manifest.py)
engine     for each shard without a part, on a worker:      (local.py, on_ray/prediction.py)
               fetch -> decode -> preprocess -> classify -> row -> part
sealing    every part checked and counted                   (sealing.py)
report     a page about it                                  (report.py)
seal       the receipt written, last, with what `plan` said (receipt.py, forecast.py)
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from cifar_ray.errors import CifarRayError, TooManyFailures
from cifar_ray.prediction.engine import Engine, Paused, RunEvent
from cifar_ray.prediction.events import Listed, Progress, ShardDone
from cifar_ray.prediction.forecasting.forecast import compare, read_forecast
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.part import read_footer
from cifar_ray.prediction.plan import Plan
from cifar_ray.prediction.receipt import Receipt, read_receipt, seal
from cifar_ray.prediction.renewal.history import last_reopening
from cifar_ray.prediction.renewal.update import apply_update
from cifar_ray.prediction.reporting.report import Speed, report_page
from cifar_ray.prediction.row import OK
from cifar_ray.prediction.sealing import draw_up, is_fit, outdated_parts, unfit_parts
from cifar_ray.prediction.shards import RunShards
from cifar_ray.prediction.suitability import doubt_warning
from cifar_ray.runs import LabellingRun, ShardName

CONFIDENCE_Z = 3.0
"""Standard deviations by which the failure rate must lie over its limit to stop a run early."""
MINIMUM_JUDGED = 500
"""Images before a run is called hopeless: files come in the order of their names, and broken ones
lie together more often than chance has it."""
MAX_ROUNDS = 3
FIRST_SHARD = ShardName(0, 0)


@dataclass(slots=True)
class RunProgress:
    """How far a run is, for a display; `listed` and `found` grow while the listing runs."""

    shards_listed: int = 0
    images_listed: int = 0
    """Of this run's shards; while the listing runs, its last shard counts as full."""
    images_before: int = 0
    shards_done: int = 0
    shards_before: int = 0
    """Done by an earlier run of the same command."""
    listing_ended: bool = False
    rows: int = 0
    failed: int = 0
    image_bytes: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    stage_seconds: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float = 0.0
    """Of all workers."""
    pause: Paused | None = None
    warning: str | None = None
    note: str | None = None
    """On the place that the run writes to; nothing about the images."""
    started: float = field(default_factory=time.monotonic)

    def speed(self) -> Speed:
        """Return how fast it went so far."""
        seconds = time.monotonic() - self.started
        return Speed(self.rows, self.image_bytes, seconds, self.stage_seconds)


Display = Callable[[RunProgress], None]


def sealed_receipt(plan: Plan) -> Receipt | None:
    """Return the receipt of a run that is complete already."""
    receipt = read_receipt(plan.store)
    if receipt is not None and receipt.run_digest != plan.record.digest:
        raise CifarRayError(
            f"{plan.store.uri}/{LabellingRun.RECEIPT} is not of the run in {LabellingRun.RECORD}: "
            "one of them was changed by hand. Start over with --fresh."
        )
    return receipt


def label(
    plan: Plan,
    engine: Engine,
    max_failure_rate: float,
    display: Display,
    still_ours: Callable[[], None] = lambda: None,
) -> Receipt:
    """Label all that is not labelled yet, and seal the run.

    `still_ours` is called before a file of the run is replaced or deleted; it raises if another run
    has taken over DEST while this process was paused.

    Raises `TooManyFailures` as soon as the failure rate is surely over its limit, and at the end
    (with the run sealed) if it is over it at all.
    """
    store, record = plan.store, plan.record
    manifest = Manifest(store, record.config.images_per_shard)
    progress = RunProgress(note=store.sweep())
    if plan.resumed and read_footer(store, FIRST_SHARD) is not None:
        progress.warning = doubt_warning(store, FIRST_SHARD, record, plan.bundle.spec)
    apply_update(store)
    reopening = last_reopening(store)
    # What is taken up again is a choice of the worst; its failures say nothing of the whole.
    hopeless_rate = 1.0 if reopening else max_failure_rate
    again = outdated_parts(store, record, manifest, reopening) if reopening else frozenset()
    for _ in range(MAX_ROUNDS):
        with closing(engine.run(RunShards.of(plan, again))) as events:
            for event in events:
                follow(progress, event, plan)
                display(progress)
                stop_if_hopeless(progress, hopeless_rate)
        again = frozenset()
        unfit = unfit_parts(store, record, manifest)
        if not unfit:
            break
        # A part that somebody damaged or swapped is done again, as one that is missing.
        for shard in unfit:
            still_ours()
            if not is_fit(store, record, manifest, shard):
                store.delete(LabellingRun.part(shard))
    still_ours()
    spec, speed = plan.bundle.spec, progress.speed()
    receipt = draw_up(store, record, manifest, spec, still_ours)
    store.delete(LabellingRun.MARKS)
    page = report_page(store, plan.source, record, spec, receipt, speed)
    still_ours()
    store.write(LabellingRun.REPORT, page)
    receipt = seal(store, _with_forecast(receipt, plan, progress, speed))
    refuse_failures(receipt, max_failure_rate)
    return receipt


def refuse_failures(receipt: Receipt, max_failure_rate: float) -> None:
    """Raise `TooManyFailures` for a sealed run whose failure rate is over its limit."""
    if receipt.failure_rate > max_failure_rate:
        counts = _too_many(receipt.num_failed, receipt.listed, Counter(receipt.failed))
        raise TooManyFailures(
            f"{counts} All rows are kept; {LabellingRun.FAILURES} has those that failed, and why. "
            "Allow more with --max-failure-rate."
        )


def _with_forecast(receipt: Receipt, plan: Plan, progress: RunProgress, speed: Speed) -> Receipt:
    """Hold what `plan` said against what came, if all of it came of this command."""
    if progress.rows != receipt.listed:
        return receipt
    actual = {
        "images": receipt.listed,
        "parts": receipt.parts,
        "read_bytes": receipt.image_bytes,
        "cpu_hours": (progress.cpu_seconds + time.process_time()) / 3600,
        "hours": speed.seconds / 3600,
    }
    compared = compare(read_forecast(plan.store), plan.record, actual)
    return receipt.model_copy(update={"forecast": compared})


def follow(progress: RunProgress, event: RunEvent, plan: Plan) -> None:
    """Bring progress up to date with an event."""
    match event:
        case Listed():
            progress.shards_listed = event.shards + event.shards_before
            progress.images_listed = event.images
            progress.shards_before = event.shards_before
            progress.images_before = event.images_before
            progress.listing_ended = event.ended
        case Progress():
            progress.pause = None
            progress.rows += event.rows
            progress.failed += event.failed
            progress.image_bytes += event.image_bytes
        case ShardDone():
            progress.shards_done += 1
            progress.statuses.update(event.footer.counts)
            progress.stage_seconds.update(event.stage_seconds)
            progress.cpu_seconds += event.cpu_seconds
            shard = ShardName.parse(event.shard)
            if shard.number == 0 and progress.warning is None:
                progress.warning = doubt_warning(plan.store, shard, plan.record, plan.bundle.spec)
        case Paused():
            progress.pause = event


def stop_if_hopeless(progress: RunProgress, max_failure_rate: float) -> None:
    """Raise `TooManyFailures` when the failure rate so far is surely over its limit.

    Judged by the lower end of Wilson's score interval over committed shards (E. B. Wilson, 1927),
    so that a few broken files at the beginning stop nothing.
    """
    total = progress.statuses.total()
    failed = total - progress.statuses[OK]
    if total >= MINIMUM_JUDGED and _wilson_lower(failed, total) > max_failure_rate:
        causes = Counter({k: n for k, n in progress.statuses.items() if k != OK})
        raise TooManyFailures(
            f"Stopped early, unfinished: {_too_many(failed, total, causes)} What is done is kept "
            f"below {LabellingRun.PREDICTIONS}/, where the column `error` says why. The same "
            "command with a higher --max-failure-rate goes on."
        )


def _wilson_lower(failed: int, total: int, z: float = CONFIDENCE_Z) -> float:
    share = failed / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (centre - spread) / (1 + z * z / total)


def _too_many(failed: int, total: int, causes: Counter[str]) -> str:
    table = ", ".join(f"{number} {cause}" for cause, number in causes.most_common())
    return f"{failed} of {total} images failed ({failed / total:.1%}): {table}."
