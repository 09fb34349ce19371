"""The bare script, and in the same straight line the least that is promised of a file and a part.

Each file's version and size are listed, cut into the shards of a labelling run, and written down
as its manifest; each file is hashed; each shard is marked, and its rows are a part with all
columns, on the disk before the next begins; at the end each part is held against its chunk of the
manifest, both get their digest, and a receipt is written. By this project's own functions for each
of these, and without all else that a run has: no second process, threads, retries, time limits,
statuses, progress or report. What this costs beyond `bare.py` no engine that keeps the same
promises in the same way can go below.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator

from benchmarks.peers.bare import Labeller
from benchmarks.peers.interface import arguments
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.models.bundle import Bundle
from cifar_ray.prediction.arrow_alone import keep_pandas_out
from cifar_ray.prediction.care.marks import remove_mark, set_mark
from cifar_ray.prediction.manifest import Manifest, RangeEnd, chunk_bytes, shard_size
from cifar_ray.prediction.part import PartFooter, read_footer, write_part
from cifar_ray.prediction.row import Outcome, Scoring, ShardRows
from cifar_ray.prediction.sources import Entry
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store, open_store
from cifar_ray.storage.digests import file_digest

RUN = "0" * 64


def listed(folder: str) -> list[Entry]:
    """Return the files of a folder in key order, each with its version."""
    entries = []
    for found in os.scandir(folder):
        status = found.stat()
        version = f"{status.st_mtime_ns}-{status.st_size}"
        entries.append(Entry(found.name, version, status.st_size))
    return sorted(entries)


def shards(entries: list[Entry]) -> Iterator[tuple[ShardName, list[Entry]]]:
    """Cut a listing as a labelling run does."""
    number = at = 0
    while at < len(entries):
        name = ShardName(0, number)
        size = shard_size(name, None)
        yield name, entries[at : at + size]
        number, at = number + 1, at + size


def read(folder: str, entries: list[Entry], outcomes: list[Outcome]) -> Iterator[bytes]:
    """Read and hash file after file."""
    for entry in entries:
        with open(f"{folder}/{entry.key}", "rb") as file:
            data = file.read()
        digest = hashlib.sha256(data).digest()
        outcomes.append(Outcome(digest, width=32, height=32, num_bytes=len(data)))
        yield data


def label_shard(
    store: Store, folder: str, name: ShardName, labeller: Labeller, scoring: Scoring
) -> None:
    """Label a shard as its chunk of the manifest lists it."""
    set_mark(store, name)
    chunk = Manifest(store, None).chunk(name)
    entries = chunk.entries()
    rows = ShardRows(str(name), entries, [f"file://{folder}/{entry.key}" for entry in entries])
    outcomes: list[Outcome] = []
    rows.add(outcomes, labeller.logits(read(folder, entries, outcomes)), None)
    num_bytes = sum(outcome.num_bytes for outcome in outcomes)
    footer = PartFooter(RUN, str(name), chunk.digest, len(entries), rows.counts(), num_bytes)
    write_part(store, rows.table(scoring), footer)
    remove_mark(store, name)


def label(folder: str, bundle: Bundle) -> None:
    """Label a folder's files; print how many, and the seconds without the model's start."""
    keep_pandas_out()
    labeller, spec = Labeller(bundle), bundle.spec
    scoring = Scoring(tuple(spec.labels), spec.temperature, bundle.id, LabellingConfig())
    store = open_store("promised")
    started = time.perf_counter()
    names, images = [], 0
    for name, entries in shards(listed(folder)):
        counted = RangeEnd(len(entries), {})
        store.create(LabellingRun.manifest_chunk(name), chunk_bytes(entries, counted))
        names.append(name)
        images += len(entries)
    for name in names:
        label_shard(store, folder, name, labeller, scoring)
    receipt = {}
    for name in names:
        footer, counts = read_footer(store, name), Manifest(store, None).counts(name)
        if footer is None or footer.shard_digest != counts.digest:
            raise SystemExit(f"The part of shard {name} is not its own.")
        files = LabellingRun.part(name), LabellingRun.manifest_chunk(name)
        receipt[str(name)] = [file_digest(store, file).sha256.hex() for file in files]
    store.write(LabellingRun.RECEIPT, json.dumps(receipt).encode())
    print(json.dumps({"images": images, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    label(*arguments())
