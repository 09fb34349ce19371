"""Marks: which shards a worker has begun and not ended.

A file a shard, created when a worker begins it and deleted when its part is there or the shard goes
back to the queue. Who finds one knows that a worker died over the shard, or was stopped, and does
the shard with care. It need not know which: the rows are the same either way, so a mark too many
costs some time and nothing else; one that a power cut undoes would have cost that time.
"""

import uuid

from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store


def set_mark(store: Store, shard: ShardName) -> bool:
    """Mark a shard as begun; tell whether it was marked already."""
    # Bytes of its own: a store that asks twice must not take an older mark for ours.
    return not store.note(LabellingRun.mark(shard), uuid.uuid4().bytes)


def remove_mark(store: Store, shard: ShardName) -> None:
    """Note that a shard is no longer in hand."""
    store.delete(LabellingRun.mark(shard))
