"""A script of this project's decoder, preprocessing and model, and nothing else of it.

Reads each file, keeps the model's streams busy, and writes one Parquet file of paths, labels and
confidences at the end: no manifest, digests, parts, statuses, marks, progress or receipt.
"""

import json
import os
import time
from collections import deque

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers.interface import arguments
from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.images.decode import decode
from cifar_ray.models.backends import Pending, open_backend, resolve_execution
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.scoring import probabilities
from cifar_ray.prediction.arrow_alone import keep_pandas_out


def label(folder: str, bundle: Bundle) -> None:
    keep_pandas_out()  # As workers do: its import would flatter them.
    execution = resolve_execution(ExecutionRequest(device="cpu"), bundle.spec)
    backend = open_backend(bundle, execution)
    preprocess = bundle.spec.preprocess
    options = preprocess.decode_options(execution.decoder, execution.decoder_scaling)
    side, size = preprocess.input_size, execution.batch_size
    paths = sorted(entry.path for entry in os.scandir(folder) if entry.is_file())
    waiting: deque[Pending] = deque()
    scores = []
    started = time.perf_counter()
    for at in range(0, len(paths), size):
        batch = np.zeros((size, side, side, 3), dtype=np.uint8)
        for slot, path in enumerate(paths[at : at + size]):
            with open(path, "rb") as file:
                batch[slot] = preprocess.apply(decode(file.read(), options).pixels)
        waiting.append(backend.submit(batch))
        if len(waiting) > backend.num_parallel:
            scores.append(backend.result(waiting.popleft()).logits)
    scores += [backend.result(handle).logits for handle in waiting]
    found = probabilities(np.concatenate(scores)[: len(paths)], bundle.spec.temperature)
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
