"""What every peer is: `python -m benchmarks.peers.NAME FOLDER BUNDLE`, run in a folder of its own.

It labels the images below FOLDER with the weights of BUNDLE, writes `labels.csv` there (path, label
id, confidence) and prints, last and as JSON, images and seconds of its steady state: from the end
of its first batch on.
"""

import csv
import json
import sys
import time
from collections.abc import Iterable

from cifar_ray.models.bundle import Bundle

Row = tuple[str, int, float]


def arguments() -> tuple[str, Bundle]:
    """Return FOLDER and BUNDLE."""
    return sys.argv[1], Bundle.load(sys.argv[2])


def finish(batches: Iterable[list[Row]]) -> None:
    """Take in the labels batch by batch, write them, and print the steady state."""
    rows: list[Row] = []
    started, first = 0.0, 0
    for batch in batches:
        rows += batch
        if not started:
            started, first = time.perf_counter(), len(rows)
    seconds = time.perf_counter() - started
    with open("labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    print(json.dumps({"images": len(rows) - first, "seconds": seconds}))
