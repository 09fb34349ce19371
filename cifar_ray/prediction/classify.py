"""A worker's work: shards in, parts out, with reading and decoding ahead of the model.

    for each shard that comes in:
        for each batch of its rows:
            threads: fetch -> sha256 -> decode -> preprocess, each into the row's own slot
                     (in a child process, if an earlier worker died over the shard)
            model: the whole batch, while the next ones are prepared
        rows -> part

Batches of the next shard are prepared while the last ones of this shard are in the model.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cifar_ray.config.labelling import RunRecord
from cifar_ray.errors import ImageFault, StoreUnavailable
from cifar_ray.images.decode import DecodeOptions
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models.backends import Backend, Pending
from cifar_ray.prediction.care.marks import remove_mark, set_mark
from cifar_ray.prediction.care.watchdog import Limits
from cifar_ray.prediction.decoding import Decoding
from cifar_ray.prediction.events import Progress, ShardDone, ShardReturned
from cifar_ray.prediction.in_this_thread import InThisThread
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.part import PartFooter, write_part
from cifar_ray.prediction.read_ahead import MAX_BYTES_AHEAD, Read, reads, reads_ahead
from cifar_ray.prediction.renewal.history import Reopening
from cifar_ray.prediction.renewal.keeping import KeptRows
from cifar_ray.prediction.row import Outcome, Scoring, ShardRows
from cifar_ray.prediction.sources import Entry, Fetcher, Source, TransientFault
from cifar_ray.prediction.stopwatch import CpuMeter, Stopwatch
from cifar_ray.runs import ShardName
from cifar_ray.storage import Store

TRANSIENT_SHARE = 0.01
TRANSIENT_MINIMUM = 3
TakeShard = Callable[[bool], ShardName | None]
"""Gives the next shard. With True it waits for one, and None says that there will be no more."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """All that a worker needs to label any shard of a run."""

    record: RunRecord
    store: Store
    manifest: Manifest
    source: Source
    fetcher: Fetcher
    decode_options: DecodeOptions
    preprocess: Preprocess
    backend: Backend
    scoring: Scoring
    decode_threads: int
    reopening: Reopening | None = None
    cpu: CpuMeter = field(default_factory=CpuMeter)

    def decoding(self) -> Decoding:
        """Start what decodes; to be closed."""
        return Decoding(self.decode_options, self.preprocess, Limits.of(self.record.config))


@dataclass(slots=True)
class _Shard:
    name: ShardName
    rows: ShardRows
    digest: str
    """Of its chunk."""
    careful: bool
    kept: KeptRows | None = None
    stages: dict[str, float] = field(default_factory=dict)
    fault: StoreUnavailable | None = None


@dataclass(slots=True)
class _Batch:
    shard: _Shard
    images: NDArray[np.uint8]
    chunks: list[Future[list[Outcome]]]
    last: bool


class Classifying:
    """Labels the shards that `take` gives, one after another, with the next ones begun."""

    def __init__(self, equipment: Equipment, take: TakeShard) -> None:
        """Start the threads; `run` does the work."""
        self.equipment = equipment
        self.take = take
        num_threads = _num_threads(equipment)
        self.threads: Executor = (
            ThreadPoolExecutor(num_threads, "decode") if num_threads else InThisThread()
        )
        self.decoding = equipment.decoding()
        self.readers = ThreadPoolExecutor(equipment.fetcher.parallel_reads, "read")
        self.prepared: deque[_Batch] = deque()
        self.in_model: deque[tuple[_Batch, list[Outcome], Pending | None]] = deque()
        self.unprepared: Iterator[_Batch] = iter(())
        self.lookahead = 1 + num_threads

    def run(self) -> Iterator[Progress | ShardDone | ShardReturned]:
        """Work until no more shards come; report every batch and every shard."""
        try:
            while self._prepare():
                # One more than the model computes at a time, so that it never waits for us.
                if self.prepared and len(self.in_model) <= self.equipment.backend.num_parallel:
                    self._submit(self.prepared.popleft())
                else:
                    yield from self._collect()
        finally:
            self.threads.shutdown(wait=False, cancel_futures=True)
            self.decoding.close()
            self.readers.shutdown(wait=False, cancel_futures=True)

    def _prepare(self) -> bool:
        """Keep the threads busy; tell whether anything is left to do."""
        while len(self.prepared) < self.lookahead:
            batch = next(self.unprepared, None)
            if batch is None:
                idle = not self.prepared and not self.in_model
                shard = self.take(idle)
                if shard is None:
                    break
                self.unprepared = self._batches(shard)
                continue
            self.prepared.append(batch)
        return bool(self.prepared or self.in_model)

    def _batches(self, name: ShardName) -> Iterator[_Batch]:
        """Start the preparation of a shard's batches, one each time that it is asked for one."""
        equipment = self.equipment
        chunk = equipment.manifest.chunk(name)
        entries = chunk.entries()
        uris = [equipment.source.uri(entry) for entry in entries]
        careful = set_mark(equipment.store, name)
        rows = ShardRows(str(name), entries, uris)
        shard = _Shard(name, rows, chunk.digest, careful, self._rows_to_keep(name, entries))
        size = equipment.record.execution.batch_size
        side = equipment.preprocess.input_size
        # At least one, so that a shard whose images are all gone is committed too.
        for start in range(0, max(1, len(entries)), size):
            part = entries[start : start + size]
            # Zeros, so that the slot of a failed image and the padding of the last batch are.
            images = np.zeros((size, side, side, 3), dtype=np.uint8)
            step = max(1, -(-len(part) // equipment.decode_threads))
            chunks = [
                self.threads.submit(
                    self._fill, shard, start + at, part[at : at + step], images[at : at + step]
                )
                for at in range(0, len(part), step)
            ]
            yield _Batch(shard, images, chunks, start + size >= len(entries))

    def _rows_to_keep(self, name: ShardName, entries: list[Entry]) -> KeptRows | None:
        equipment = self.equipment
        if equipment.reopening is None:
            return None
        return KeptRows.of(equipment.store, equipment.record, name, entries, equipment.reopening)

    def _revision(self, shard: _Shard) -> int:
        reopening = self.equipment.reopening
        return reopening.number if reopening is not None and shard.kept is not None else 0

    def _fill(
        self, shard: _Shard, first_row: int, entries: list[Entry], slots: NDArray[np.uint8]
    ) -> list[Outcome]:
        if shard.fault is not None:
            return [Outcome() for _ in entries]
        kept = shard.kept.outcomes(first_row, len(entries)) if shard.kept else {}
        left = [entry for at, entry in enumerate(entries) if at not in kept] if kept else entries
        reads = self._reads(left)
        decoding, careful = self.decoding, shard.careful
        stopwatch = Stopwatch()
        outcomes = [
            kept[at] if at in kept else fill_slot(next(reads), slot, decoding, careful, stopwatch)
            for at, slot in enumerate(slots[: len(entries)])
        ]
        for stage, seconds in stopwatch.seconds.items():
            _add(shard.stages, stage, seconds)
        return outcomes

    def _reads(self, entries: list[Entry]) -> Iterator[Read]:
        """Split what one process may read at a time among the threads that decode."""
        fetcher, num_threads = self.equipment.fetcher, self.equipment.decode_threads
        if fetcher.parallel_reads == 1:
            return reads(fetcher, entries)
        num_ahead = max(1, fetcher.parallel_reads // num_threads)
        max_bytes = MAX_BYTES_AHEAD // num_threads
        return reads_ahead(fetcher, entries, self.readers, num_ahead, max_bytes)

    def _submit(self, batch: _Batch) -> None:
        """Wait for a batch's images and hand them to the model."""
        outcomes: list[Outcome] = []
        started = time.perf_counter()
        for chunk in batch.chunks:
            try:
                outcomes.extend(chunk.result())
            except StoreUnavailable as fault:
                batch.shard.fault = fault
        _add(batch.shard.stages, "wait", time.perf_counter() - started)
        handle = None
        if batch.shard.fault is None:
            handle = self.equipment.backend.submit(batch.images)
        self.in_model.append((batch, outcomes, handle))

    def _collect(self) -> Iterator[Progress | ShardDone | ShardReturned]:
        """Take the oldest batch out of the model; with the last one of a shard, commit it."""
        batch, outcomes, handle = self.in_model.popleft()
        shard = batch.shard
        if shard.fault is None and handle is not None:
            started = time.perf_counter()
            outputs = self.equipment.backend.result(handle)
            _add(shard.stages, "model", time.perf_counter() - started)
            features = outputs.features if self.equipment.record.config.embeddings else None
            shard.rows.add(outcomes, outputs.logits, features)
            failed = sum(outcome.status != "ok" for outcome in outcomes)
            yield Progress(len(outcomes), failed, sum(outcome.num_bytes for outcome in outcomes))
        if batch.last:
            event = self._commit(shard)
            remove_mark(self.equipment.store, shard.name)
            yield event

    def _commit(self, shard: _Shard) -> ShardDone | ShardReturned:
        outcomes = shard.rows.outcomes
        transient = sum(outcome.transient for outcome in outcomes)
        if shard.fault is not None:
            return ShardReturned(str(shard.name), str(shard.fault))
        if transient >= TRANSIENT_MINIMUM and transient > TRANSIENT_SHARE * len(outcomes):
            reason = (
                f"the store failed to give {transient} of {len(outcomes)} images, after retries"
            )
            return ShardReturned(str(shard.name), reason)
        started = time.perf_counter()
        footer = PartFooter(
            run=self.equipment.record.digest,
            shard=str(shard.name),
            shard_digest=shard.digest,
            rows=len(outcomes),
            counts=shard.rows.counts(),
            image_bytes=sum(outcome.num_bytes for outcome in outcomes),
            revision=self._revision(shard),
        )
        table = shard.rows.table(self.equipment.scoring)
        if shard.kept:
            table = shard.kept.put_into(table)
        try:
            write_part(self.equipment.store, table, footer)
        except StoreUnavailable as fault:
            return ShardReturned(str(shard.name), str(fault))
        _add(shard.stages, "write", time.perf_counter() - started)
        return ShardDone(str(shard.name), footer, shard.stages, self.equipment.cpu.lap())


def _num_threads(equipment: Equipment) -> int:
    """Return how many threads read and decode; 0 where one would do no better than none."""
    if equipment.decode_threads == 1 and equipment.fetcher.parallel_reads == 1:
        return 0
    return equipment.decode_threads


def fill_slot(
    read: Read, slot: NDArray[np.uint8], decoding: Decoding, careful: bool, stopwatch: Stopwatch
) -> Outcome:
    """Bring an image from its store to its slot of the batch (S×S×3); return what became of it."""
    outcome = Outcome()
    stage = "fetch"
    try:
        data = read()
        stopwatch.lap(stage)
        outcome.num_bytes = len(data)
        outcome.sha256 = hashlib.sha256(data).digest()
        stopwatch.lap("hash")
        stage = "decode"
        outcome.width, outcome.height = decoding.fill(data, slot, careful, stopwatch)
        stage = "preprocess"
    except ImageFault as fault:
        outcome.status, outcome.error = fault.status, fault.error
        outcome.transient = isinstance(fault, TransientFault)
    stopwatch.lap(stage)
    return outcome


def _add(stages: dict[str, float], stage: str, seconds: float) -> None:
    stages[stage] = stages.get(stage, 0.0) + seconds
