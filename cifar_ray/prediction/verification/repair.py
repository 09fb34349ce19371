"""Opening a damaged run again, so that the same predict command does just the bad parts again."""

from collections.abc import Iterator

from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.renewal.history import Reopening, finish_moves, reopen_and_move
from cifar_ray.prediction.renewal.update import apply_update
from cifar_ray.prediction.verification.verify import Verified
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store


def finish_begun(store: Store) -> None:
    """Finish what a killed repair or update has begun to move. DEST's lease is held."""
    finish_moves(store)
    apply_update(store)


def repair(store: Store, verified: Verified) -> Reopening:
    """Move what is not good to `_history/`. DEST's lease is held."""
    return reopen_and_move(store, "repair", dict.fromkeys(_not_good(store, verified)))


def _not_good(store: Store, verified: Verified) -> Iterator[str]:
    """Yield the files to move: parts, then the listing from its end, then what follows from it."""
    for found in verified.differences:
        if found.part is not None:
            yield found.part
    manifest = Manifest(store, verified.record.config.images_per_shard)
    for found in verified.differences:
        if found.range_end is not None:
            yield LabellingRun.range_end(found.range_end)
    for range_number, bad in _bad_chunks(verified).items():
        yield LabellingRun.range_end(range_number)
        for name in reversed(_to_list_again(manifest, range_number, bad)):
            yield LabellingRun.manifest_chunk(name)
    yield from (LabellingRun.PARTS_INDEX, LabellingRun.FAILURES, LabellingRun.REPORT)
    if any(found.where.startswith(LabellingRun.BUNDLE) for found in verified.differences):
        for file in store.names(LabellingRun.BUNDLE):
            yield f"{LabellingRun.BUNDLE}/{file}"


def _bad_chunks(verified: Verified) -> dict[int, set[ShardName]]:
    """Return the shards whose listing is not good, by their range."""
    bad: dict[int, set[ShardName]] = {}
    for found in verified.differences:
        if found.chunk is not None:
            bad.setdefault(found.chunk.range_number, set()).add(found.chunk)
    return bad


def _to_list_again(manifest: Manifest, range_number: int, bad: set[ShardName]) -> list[ShardName]:
    """Return the chunks to move: the bad ones and all that was listed behind them.

    If the source is as it was, they are listed again as they were, and good parts stay good. A
    listing goes on behind its last chunk's key; but what an update adds may lie before that, so
    that a range with an update is listed again from its beginning.
    """
    names = manifest.existing(range_number)
    # Chunks of updates come last: the last one tells whether there are any.
    last_is_good = bool(names) and names[-1] not in bad and names[-1] > min(bad)
    if last_is_good and manifest.counts(names[-1]).generation == 0:
        return [name for name in names if name >= min(bad)]
    return names
