"""A sealed labelling run over real files, with scores drawn from a seed instead of a model."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_ray.config.execution import Execution
from cifar_ray.config.labelling import (
    BundleReference,
    LabellingConfig,
    RunRecord,
    SourceReference,
)
from cifar_ray.errors import ImageFault
from cifar_ray.images.decode import DecodeOptions, decode
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models.bundle_spec import BundleSpec, TrainedOn
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.part import PartFooter, write_part
from cifar_ray.prediction.receipt import Receipt, seal
from cifar_ray.prediction.row import Outcome, Scoring, ShardRows
from cifar_ray.prediction.sealing import draw_up, unfit_parts
from cifar_ray.prediction.sources import Entry, Fetcher, Source, open_source
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import FolderStore

LABELS = ("cat", "dog", "ship")


@dataclass(frozen=True)
class FinishedRun:
    store: FolderStore
    source: Source
    record: RunRecord
    spec: BundleSpec
    receipt: Receipt


def finish_run(
    source: Path,
    destination: Path,
    *,
    labels: tuple[str, ...] = LABELS,
    temperature: float | None = 1.0,
    warnings: tuple[str, ...] = (),
    config: LabellingConfig | None = None,
) -> FinishedRun:
    """Give each image of `source` a label by seed, and seal the run in `destination`."""
    config = config or LabellingConfig(images_per_shard=8)
    store = FolderStore(destination)
    spec = BundleSpec(
        network="cnn-122k",
        labels=labels,
        preprocess=Preprocess(squash=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        trained_on=TrainedOn(dataset="drawn images", num_images=1200),
        temperature=temperature,
    )
    record = RunRecord(
        code_version="0",
        created_at="2026-01-01T00:00:00+00:00",
        config=config,
        execution=Execution(
            backend="torch",
            precision="float32",
            device="cpu",
            batch_size=8,
            threads=1,
            decoder="pillow",
            decoder_scaling=False,
            versions={},
            instruction_set="none",
        ),
        bundle=BundleReference(id="cnn-122k-0", digest="0" * 64),
        source=SourceReference(kind="folder", uri=str(source)),
        warnings=warnings,
    )
    scoring = Scoring(labels, temperature, "cnn-122k-0", config)
    manifest = Manifest(store, config.images_per_shard)
    random = np.random.default_rng(0)
    images = open_source(record.source, config)
    fetcher = images.fetcher()
    for shard in manifest.shards(0, images.listing(0)):
        chunk = manifest.chunk(shard)
        entries = chunk.entries()
        rows = ShardRows(str(shard), entries, [images.uri(entry) for entry in entries])
        logits = 3 * random.standard_normal((len(entries), len(labels)), dtype=np.float32)
        rows.add([_look_at(fetcher, entry) for entry in entries], logits, None)
        footer = PartFooter(
            run=record.digest,
            shard=str(shard),
            shard_digest=chunk.digest,
            rows=len(entries),
            counts=rows.counts(),
            image_bytes=sum(entry.size_bytes for entry in entries),
        )
        write_part(store, rows.table(scoring), footer)
    store.write(LabellingRun.RECORD, record.to_bytes())
    assert unfit_parts(store, record, manifest) == []
    receipt = draw_up(store, record, manifest, spec)
    receipt = seal(store, receipt)
    return FinishedRun(store, images, record, spec, receipt)


def _look_at(fetcher: Fetcher, entry: Entry) -> Outcome:
    data = fetcher.fetch(entry)
    outcome = Outcome(sha256=hashlib.sha256(data).digest(), num_bytes=len(data))
    try:
        image = decode(data, DecodeOptions())
    except ImageFault as fault:
        outcome.status, outcome.error = fault.status, fault.error
    else:
        outcome.width, outcome.height = image.width, image.height
    return outcome
