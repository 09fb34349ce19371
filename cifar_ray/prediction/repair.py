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
    for chunk in _first_bad_chunks(verified):
        # What follows was listed from where the bad chunk ended. If the source is as it was, it is
        # listed again as it was, and the parts that are good stay good.
        for name in manifest.existing(chunk.range_number):
            if name >= chunk:
                history.keep(store, LabellingRun.manifest_chunk(name))
        history.keep(store, LabellingRun.range_end(chunk.range_number))
    for found in verified.differences:
        if found.range_end is not None:
            history.keep(store, LabellingRun.range_end(found.range_end))
    for derived in (LabellingRun.PARTS_INDEX, LabellingRun.FAILURES, LabellingRun.REPORT):
        history.keep(store, derived)
    if any(found.where.startswith(LabellingRun.BUNDLE) for found in verified.differences):
        for file in store.names(LabellingRun.BUNDLE):
            history.keep(store, f"{LabellingRun.BUNDLE}/{file}")
    return history


def _first_bad_chunks(verified: Verified) -> list[ShardName]:
    """Return the first shard of each range whose listing is not good."""
    first: dict[int, ShardName] = {}
    for found in verified.differences:
        bad = found.chunk
        if bad is not None and bad <= first.get(bad.range_number, bad):
            first[bad.range_number] = bad
    return list(first.values())
