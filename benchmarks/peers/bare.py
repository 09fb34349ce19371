"""A script of this project's decoder, preprocessing and model, and nothing else of it.

Reads each file, keeps the model's streams busy, and writes one Parquet file of paths, labels and
confidences at the end: no manifest, digests, parts, statuses, marks, progress or receipt.
"""

import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.peers.interface import arguments
from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.images.decode import decode
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models.backends import Backend, Pending, open_backend, resolve_execution
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.scoring import probabilities
from cifar_ray.prediction.arrow_alone import keep_pandas_out


class Labeller:
    """Decoder, preprocessing and model of a bundle, as a labelling run chooses them."""

    def __init__(self, bundle: Bundle) -> None:
        """Open the model."""
        execution = resolve_execution(ExecutionRequest(device="cpu"), bundle.spec)
        self.backend: Backend = open_backend(bundle, execution)
        self.preprocess: Preprocess = bundle.spec.preprocess
        self.options = self.preprocess.decode_options(execution.decoder, execution.decoder_scaling)
        self.batch_size = execution.batch_size

    def logits(self, files: Iterable[bytes]) -> NDArray[np.float32]:
        """Return the logits (N×C) of N files, each decoded between the model's batches."""
        side, size = self.preprocess.input_size, self.batch_size
        waiting: deque[tuple[Pending, int]] = deque()
        scores = []
        images = (self.preprocess.apply(decode(data, self.options).pixels) for data in files)
        while True:
            batch = np.zeros((size, side, side, 3), dtype=np.uint8)
            filled = 0
            for filled, image in enumerate(islice(images, size), start=1):
                batch[filled - 1] = image
            if filled:
                waiting.append((self.backend.submit(batch), filled))
            if waiting and (not filled or len(waiting) > self.backend.num_parallel):
                handle, number = waiting.popleft()
                scores.append(np.array(self.backend.result(handle).logits[:number]))
            if not filled and not waiting:
                return np.concatenate(scores)


def contents(paths: Iterable[str]) -> Iterator[bytes]:
    """Read file after file."""
    for path in paths:
        with open(path, "rb") as file:
            yield file.read()


def label(folder: str, bundle: Bundle) -> None:
    """Label a folder's files; print how many, and the seconds without the model's start."""
    keep_pandas_out()  # As workers do: its import would flatter them.
    labeller = Labeller(bundle)
    paths = sorted(entry.path for entry in os.scandir(folder) if entry.is_file())
    started = time.perf_counter()
    logits = labeller.logits(contents(paths))
    found = probabilities(logits, bundle.spec.temperature)
    best = found.argmax(axis=1)
    table = pa.table(
        {
            "path": paths,
            "label": [bundle.spec.labels[label] for label in best],
            "confidence": found.max(axis=1),
        }
    )
    pq.write_table(table, "labels.parquet")
    print(json.dumps({"images": len(paths), "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    label(*arguments())
