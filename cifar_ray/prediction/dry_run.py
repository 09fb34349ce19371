"""What a run would read, skip and write, and how long it would take, without writing anything."""

import tempfile
import time
from itertools import islice
from pathlib import Path

from cifar_ray.config.frozen import FrozenConfig
from cifar_ray.models.backends import resolve_execution
from cifar_ray.models.opening import open_bundle
from cifar_ray.prediction.classify import Classifying, TakeShard
from cifar_ray.prediction.events import ShardDone
from cifar_ray.prediction.plan import FIRST_IMAGES, Request, make_plan
from cifar_ray.prediction.sources import find_source, open_source
from cifar_ray.prediction.survey import survey
from cifar_ray.prediction.worker import equip
from cifar_ray.runs import LabellingRun, ShardName

ROW_BYTES = 160
"""A row in a part, compressed; keys of ordinary length, five scores."""


class Preview(FrozenConfig):
    """What `--dry-run` says."""

    model: str
    classes: str
    found: int
    skipped: dict[str, int]
    listed: int
    image_bytes: int
    parts: int
    output_bytes: int
    seconds: float
    basis: str
    warnings: tuple[str, ...]


def dry_run(request: Request, num_cores: int) -> Preview:
    """List SOURCE, label its first images into a temporary folder, and extrapolate."""
    reference = find_source(request.source, request.root, request.config)
    source = open_source(reference, request.config)
    bundle = open_bundle(request.model, request.weights)
    seen = survey(source, request.config.images_per_shard)
    seconds_an_image, measured, warnings = _measure(request)
    threads = resolve_execution(request.execution, bundle.spec).threads
    workers = max(1, num_cores // threads)
    return Preview(
        model=bundle.id,
        classes=", ".join(bundle.spec.labels[:10]) + (" …" if len(bundle.spec.labels) > 10 else ""),
        found=seen.found,
        skipped=dict(sorted(seen.skipped.items())),
        listed=seen.listed,
        image_bytes=seen.image_bytes,
        parts=len(seen.shards),
        output_bytes=seen.listed * ROW_BYTES,
        seconds=seen.listed * seconds_an_image / workers,
        basis=f"from {measured} images on one worker, for {workers}",
        warnings=warnings,
    )


def _measure(request: Request) -> tuple[float, int, tuple[str, ...]]:
    """Label the first images once to warm up and once by the clock; seconds an image."""
    config = request.config.model_copy(update={"limit": FIRST_IMAGES, "sample": None})
    with tempfile.TemporaryDirectory(prefix="cifar-ray-") as folder:
        trial = Request(
            source=request.source,
            destination=str(Path(folder) / "trial"),
            model=request.model,
            weights=request.weights,
            config=config,
            execution=request.execution,
            root=request.root,
        )
        plan = make_plan(trial)
        equipment = equip(plan.store, plan.source.reference)
        shards = list(islice(equipment.manifest.shards(0, plan.source.listing(0)), 1))
        for _ in range(2):
            plan.store.delete(LabellingRun.PREDICTIONS)
            started = time.monotonic()
            events = list(Classifying(equipment, _one_by_one(list(shards))).run())
            seconds = time.monotonic() - started
        rows = sum(event.footer.rows for event in events if isinstance(event, ShardDone))
    return seconds / max(1, rows), rows, plan.record.warnings


def _one_by_one(shards: list[ShardName]) -> TakeShard:
    return lambda wait: shards.pop() if shards else None
