"""Opening a damaged run again, so that the same predict command does just the bad parts again."""

from cifar_ray.prediction.history import Reopening, reopen
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.verification import Verified
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store


def repair(store: Store, verified: Verified) -> Reopening:
    """Move what is not good to `_history/`. DEST's lease is held."""
    history = reopen(store, "repair")
    for part in {found.part for found in verified.differences if found.part is not None}:
        history.keep(store, part)
    manifest = Manifest(store, verified.record.config.images_per_shard)
    for range_number, bad in _bad_chunks(verified).items():
        for name in _to_list_again(manifest, range_number, bad):
            history.keep(store, LabellingRun.manifest_chunk(name))
        history.keep(store, LabellingRun.range_end(range_number))
    for found in verified.differences:
        if found.range_end is not None:
            history.keep(store, LabellingRun.range_end(found.range_end))
    for derived in (LabellingRun.PARTS_INDEX, LabellingRun.FAILURES, LabellingRun.REPORT):
        history.keep(store, derived)
    if any(found.where.startswith(LabellingRun.BUNDLE) for found in verified.differences):
        for file in store.names(LabellingRun.BUNDLE):
            history.keep(store, f"{LabellingRun.BUNDLE}/{file}")
    return history


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
