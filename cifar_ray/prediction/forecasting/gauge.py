"""What labelling costs here: a process labels a sample again and again, and tells the CPU time.

`python -m cifar_ray.prediction.forecasting.gauge DEST SOURCE SAMPLE SINGLE`: DEST holds a run whose
manifest has the sample as shard SAMPLE, and its first image alone as shard SINGLE. Each line that
comes in is answered with a `Round` as a line of JSON; the end of input ends it.
"""

import json
import os
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from cifar_ray.config.labelling import SourceReference
from cifar_ray.errors import CifarRayError, StoreUnavailable
from cifar_ray.prediction.arrow_alone import keep_pandas_out
from cifar_ray.prediction.classify import Classifying, Equipment, fill_slot
from cifar_ray.prediction.decoding import Decoding
from cifar_ray.prediction.events import ShardReturned, WorkerError, WorkerReady, to_line
from cifar_ray.prediction.sources import Entry
from cifar_ray.prediction.stopwatch import Stopwatch
from cifar_ray.prediction.worker import equip
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import open_store

STAGES = ("fetch", "hash", "decode", "preprocess")


class ImageCost(NamedTuple):
    """CPU seconds of one image, from the store to its slot of the batch; and its size."""

    fetch: float
    hash: float
    decode: float
    preprocess: float
    num_bytes: int

    @property
    def seconds(self) -> float:
        """All stages."""
        return self.fetch + self.hash + self.decode + self.preprocess


@dataclass(frozen=True, slots=True)
class Round:
    """One time through the sample. Seconds are of the CPU, of the whole process, but for `wall_s`.

    The images and the batches are timed one by one; the shards as a run labels them, threads and
    parts and all.
    """

    start_s: float
    """From the start of the process to the first image; the same in all rounds."""
    images: tuple[ImageCost, ...]
    num_batches: int
    batches_s: float
    """Of the model alone, over the batches of the sample."""
    shard_s: float
    single_s: float
    wall_s: float
    """Of the shard with the whole sample."""
    part_bytes: int

    @property
    def seconds(self) -> float:
        """All of the round, to compare it with others over the same sample."""
        images = sum(image.seconds for image in self.images)
        return images + self.batches_s + self.single_s + self.shard_s

    @classmethod
    def from_json(cls, text: str) -> "Round":
        """Read an answer."""
        content: dict[str, Any] = json.loads(text)
        images = tuple(ImageCost(*cost) for cost in content.pop("images"))
        return cls(images=images, **content)


class Gauge:
    """Measures with what a worker has."""

    def __init__(self, equipment: Equipment, sample: ShardName, single: ShardName) -> None:
        """Nothing is measured yet but the start."""
        self.equipment = equipment
        self.sample, self.single = sample, single
        self.entries = equipment.manifest.entries(sample)
        side = equipment.preprocess.input_size
        size = equipment.record.execution.batch_size
        num_batches = -(-len(self.entries) // size)
        self.batches = np.zeros((num_batches, size, side, side, 3), dtype=np.uint8)
        # Only now: Arrow loads much of itself with the first table.
        self.start_s = time.process_time()

    def measure(self) -> Round:
        """Go through the sample once."""
        images = self._images()
        batches_s = self._model()
        single_s, _ = self._shard(self.single)
        shard_s, wall_s = self._shard(self.sample)
        part = self.equipment.store.read(LabellingRun.part(self.sample))
        return Round(
            start_s=self.start_s,
            images=images,
            num_batches=len(self.batches),
            batches_s=batches_s,
            shard_s=shard_s,
            single_s=single_s,
            wall_s=wall_s,
            part_bytes=len(part),
        )

    def _images(self) -> tuple[ImageCost, ...]:
        slots = self.batches.reshape(-1, *self.batches.shape[2:])
        with closing(self.equipment.decoding()) as decoding:
            pairs = zip(self.entries, slots, strict=False)  # the last batch is padded
            return tuple(self._image(entry, slot, decoding) for entry, slot in pairs)

    def _image(self, entry: Entry, slot: NDArray[np.uint8], decoding: Decoding) -> ImageCost:
        stopwatch = Stopwatch(time.process_time)
        read = partial(self.equipment.fetcher.fetch, entry)
        outcome = fill_slot(read, slot, decoding, False, stopwatch)
        seconds = {stage: stopwatch.seconds.get(stage, 0.0) for stage in STAGES}
        return ImageCost(**seconds, num_bytes=outcome.num_bytes)

    def _model(self) -> float:
        started = time.process_time()
        for batch in self.batches:
            self.equipment.backend.run(batch)
        return time.process_time() - started

    def _shard(self, shard: ShardName) -> tuple[float, float]:
        """Label a shard; CPU and wall seconds."""
        names = iter([shard])
        started, cpu_started = time.perf_counter(), time.process_time()
        for event in Classifying(self.equipment, lambda _: next(names, None)).run():
            if isinstance(event, ShardReturned):
                raise StoreUnavailable(f"{event.reason[0].upper()}{event.reason[1:]}.")
        return time.process_time() - cpu_started, time.perf_counter() - started


def main() -> int:
    """Answer until the input ends; return the exit code."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    keep_pandas_out()  # as a worker does, whose start this measures
    try:
        _answer(answers)
    except CifarRayError as error:
        answers.write(to_line(WorkerError(str(error), error.exit_code)))
        answers.flush()
        return error.exit_code
    return 0


def _answer(answers: TextIO) -> None:
    destination, source, sample, single = sys.argv[1:]
    reference = SourceReference.model_validate_json(source)
    equipment = equip(open_store(destination), reference)
    gauge = Gauge(equipment, ShardName.parse(sample), ShardName.parse(single))
    answers.write(to_line(WorkerReady()))
    answers.flush()
    for _ in sys.stdin:
        answers.write(json.dumps(asdict(gauge.measure())) + "\n")
        answers.flush()


if __name__ == "__main__":
    sys.exit(main())
