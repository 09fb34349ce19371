"""Proof that labels belong to their files: random rows' images are read and labelled again.

Each image goes into the slot of its batch that it had, beside others of the sample, and through
the same decoder, preprocessing and backend; a label or digest that differs is a difference.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cifar_ray.config.labelling import SourceReference
from cifar_ray.prediction.classify import Equipment, fill_slot
from cifar_ray.prediction.row import OK, Outcome, ShardRows
from cifar_ray.prediction.sources import Entry
from cifar_ray.prediction.stopwatch import Stopwatch
from cifar_ray.prediction.verification.shard_check import Difference
from cifar_ray.prediction.worker import equip
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store

SCORE_TOLERANCE = 1e-3
COMPARED = ("sha256", "status", "width", "height", "label_id", "top_scores")


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A row of the sample."""

    shard: ShardName
    row: int
    entry: Entry


def replay(store: Store, source: SourceReference, num_rows: int, seed: int) -> list[Difference]:
    """Label `num_rows` random rows' images again; return those that come out otherwise.

    Raises `InputError` where this machine cannot do what the run did, `StoreUnavailable` where
    the source is gone.
    """
    equipment = equip(store, source)
    chosen = list(_choose(store, equipment, num_rows, seed))
    outcomes, logits = _label(chosen, equipment)
    rows = ShardRows("", [one.entry for one in chosen], [""] * len(chosen))
    rows.add(outcomes, logits, None)
    now = rows.table(equipment.scoring).select(COMPARED).to_pylist()
    differences = []
    for one, there, here in zip(chosen, _sealed_rows(store, chosen), now, strict=True):
        what = _difference(there, here)
        if what is not None:
            differences.append(Difference(f"{one.shard}, {one.entry.key}", what))
    return differences


def _choose(store: Store, equipment: Equipment, number: int, seed: int) -> Iterator[_Chosen]:
    """Yield rows, all equally likely, in the order of shards."""
    with store.open(LabellingRun.PARTS_INDEX) as file:
        index = pq.read_table(file, columns=["name", "rows"]).to_pydict()
    ends = list(accumulate(index["rows"]))
    total = ends[-1] if ends else 0
    wanted = sorted(random.Random(seed).sample(range(total), min(number, total)))
    at = 0
    for name, end, size in zip(index["name"], ends, index["rows"], strict=True):
        rows = []
        while at < len(wanted) and wanted[at] < end:
            rows.append(wanted[at] - (end - size))
            at += 1
        if rows:
            shard = ShardName.parse(name)
            entries = equipment.manifest.entries(shard)
            yield from (_Chosen(shard, row, entries[row]) for row in rows)


def _label(
    chosen: list[_Chosen], equipment: Equipment
) -> tuple[list[Outcome], NDArray[np.float32]]:
    """Return each row's outcome and its logits (rows×C). No file can take this process with it."""
    outcomes = [Outcome() for _ in chosen]
    logits = np.zeros((len(chosen), len(equipment.scoring.labels)), dtype=np.float32)
    size, side = equipment.record.execution.batch_size, equipment.preprocess.input_size
    with closing(equipment.decoding()) as decoding:
        for batch in _batches(chosen, size):
            images = np.zeros((size, side, side, 3), dtype=np.uint8)
            for at in batch:
                read = partial(equipment.fetcher.fetch, chosen[at].entry)
                slot = images[chosen[at].row % size]
                outcomes[at] = fill_slot(read, slot, decoding, True, Stopwatch())
            scores = equipment.backend.result(equipment.backend.submit(images)).logits
            for at in batch:
                logits[at] = scores[chosen[at].row % size]
    return outcomes, logits


def _batches(chosen: list[_Chosen], size: int) -> list[list[int]]:
    """Return batches of places in `chosen`, no slot twice in one."""
    by_slot: dict[int, list[int]] = defaultdict(list)
    for at, one in enumerate(chosen):
        by_slot[one.row % size].append(at)
    rounds = max((len(places) for places in by_slot.values()), default=0)
    return [
        [places[turn] for places in by_slot.values() if turn < len(places)]
        for turn in range(rounds)
    ]


def _sealed_rows(store: Store, chosen: list[_Chosen]) -> Iterator[dict[str, object]]:
    by_shard: dict[ShardName, list[int]] = defaultdict(list)
    for one in chosen:
        by_shard[one.shard].append(one.row)
    for shard, rows in by_shard.items():
        with store.open(LabellingRun.part(shard)) as file:
            yield from pq.read_table(file, columns=list(COMPARED)).take(rows).to_pylist()


def _difference(there: dict[str, object], here: dict[str, object]) -> str | None:
    """Return how a row that was labelled again differs from the sealed one, or None."""
    if here["status"] != there["status"]:
        return f"its status was {there['status']}, and is {here['status']} when it is read again"
    if here["sha256"] != there["sha256"]:
        return "its file holds other bytes than those that were labelled"
    if there["status"] != OK:
        return None
    if here["label_id"] != there["label_id"]:
        return "its label is not the one that its file gets"
    scores = np.array(here["top_scores"]) - np.array(there["top_scores"])
    if np.abs(scores).max() > SCORE_TOLERANCE:
        return "its scores are not those that its file gets"
    return None
