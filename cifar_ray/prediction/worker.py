"""A worker process of the local engine: shard names in on stdin, JSON lines out on stdout.

`python -m cifar_ray.prediction.worker DEST SOURCE` (SOURCE as a reference in JSON); everything
else stands in DEST's `run.json`.
End of input ends it, so that a killed driver leaves no worker behind.
"""

import os
import queue
import signal
import sys
import threading
import time
from typing import TextIO

import psutil

from cifar_ray.config.labelling import RunRecord, SourceReference
from cifar_ray.errors import CifarRayError
from cifar_ray.models.backends import open_backend
from cifar_ray.prediction.arrow_alone import keep_pandas_out
from cifar_ray.prediction.classify import Classifying, Equipment
from cifar_ray.prediction.events import (
    Event,
    Progress,
    ShardDone,
    WorkerError,
    WorkerReady,
    to_line,
)
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.renewal.history import last_reopening
from cifar_ray.prediction.row import Scoring
from cifar_ray.prediction.run_bundle import run_bundle
from cifar_ray.prediction.sources import open_source
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store, open_store

PROGRESS_INTERVAL_S = 0.5


def equip(store: Store, reference: SourceReference) -> Equipment:
    """Open what a worker needs by DEST's record; `InputError` if it cannot be honoured here."""
    record = RunRecord.model_validate_json(store.read(LabellingRun.RECORD))
    bundle = run_bundle(store, record.bundle)
    preprocess = bundle.spec.preprocess
    execution = record.execution
    source = open_source(reference, record.config)
    return Equipment(
        record=record,
        store=store,
        manifest=Manifest(store, record.config.images_per_shard, record.source.carried),
        source=source,
        fetcher=source.fetcher(),
        decode_options=preprocess.decode_options(execution.decoder, execution.decoder_scaling),
        preprocess=preprocess,
        backend=open_backend(bundle, execution),
        scoring=Scoring(
            labels=tuple(bundle.spec.labels),
            temperature=bundle.spec.temperature,
            model=bundle.id,
            config=record.config,
            carried=record.source.carried,
        ),
        decode_threads=max(1, execution.threads),
        reopening=last_reopening(store),
    )


class _Reporter:
    """Writes messages, and sums up progress so that there are few of them."""

    def __init__(self, output: TextIO) -> None:
        self.output = output
        self.rows = self.failed = self.image_bytes = 0
        self.due = 0.0

    def send(self, event: Event) -> None:
        self.output.write(to_line(event))
        self.output.flush()

    def progress(self, progress: Progress) -> None:
        self.rows += progress.rows
        self.failed += progress.failed
        self.image_bytes += progress.image_bytes
        if time.monotonic() >= self.due:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            self.send(Progress(self.rows, self.failed, self.image_bytes))
        self.rows = self.failed = self.image_bytes = 0
        self.due = time.monotonic() + PROGRESS_INTERVAL_S


def main() -> int:
    """Work until the input ends; return the exit code."""
    # The terminal sends Ctrl-C to every process of the group; the driver decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print must not mix with the messages.
    reporter = _Reporter(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    keep_pandas_out()
    try:
        source = SourceReference.model_validate_json(sys.argv[2])
        _work(open_store(sys.argv[1]), source, reporter)
    except CifarRayError as error:
        reporter.send(WorkerError(str(error), error.exit_code))
        return error.exit_code
    return 0


def _work(store: Store, source: SourceReference, reporter: _Reporter) -> None:
    incoming: queue.Queue[ShardName | None] = queue.Queue()
    threading.Thread(target=_read_names, args=(incoming,), daemon=True).start()
    equipment = equip(store, source)
    reporter.send(WorkerReady())
    # From the process's beginning, so that its imports count.
    start = {"start": time.time() - psutil.Process().create_time()}

    def take(wait: bool) -> ShardName | None:
        try:
            return incoming.get(block=wait)
        except queue.Empty:
            return None

    for event in Classifying(equipment, take).run():
        if isinstance(event, Progress):
            reporter.progress(event)
            continue
        if isinstance(event, ShardDone):
            event.stage_seconds.update(start)
            start.clear()
        reporter.flush()
        reporter.send(event)


def _read_names(incoming: "queue.Queue[ShardName | None]") -> None:
    for line in sys.stdin:
        incoming.put(ShardName.parse(line))
    incoming.put(None)


if __name__ == "__main__":
    sys.exit(main())
