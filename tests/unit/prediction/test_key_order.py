"""Keys in order over shards of several ranges and updates."""

from pathlib import Path
from typing import BinaryIO

from cifar_ray.prediction.key_order import in_key_order, repeated_keys
from cifar_ray.prediction.manifest import Manifest, RangeEnd, chunk_bytes
from cifar_ray.prediction.sources import Entry
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import FolderStore

CHUNKS = {
    ShardName(0, 0): (0, "ab"),
    ShardName(0, 1): (0, "df"),
    ShardName(0, 2): (1, "ce"),
    ShardName(1, 0): (0, "mp"),
    ShardName(1, 1): (1, "no"),
    ShardName(1, 2): (2, "lo"),
}
"""Generation and keys of each."""


class RecordingStore(FolderStore):
    """Remembers the shards whose files were opened."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[ShardName] = []

    def open(self, name: str) -> BinaryIO:
        self.opened.append(ShardName.parse(name))
        return super().open(name)


def write(store: FolderStore) -> Manifest:
    for name, (generation, keys) in CHUNKS.items():
        data = chunk_bytes([Entry(key, "v", 1) for key in keys], RangeEnd(2, {}), generation)
        store.write(LabellingRun.manifest_chunk(name), data)
    return Manifest(store, 2)


def test_shards_of_several_updates_are_merged(tmp_path: Path) -> None:
    manifest = write(FolderStore(tmp_path))
    listed = list(in_key_order(manifest, list(CHUNKS)))
    assert "".join(found.entry.key for found in listed) == "abcdeflmnoop"
    assert str(listed[2].shard) == "0000-0000002"


def test_keys_that_two_shards_have_are_found_in_one_range_after_another(tmp_path: Path) -> None:
    store = RecordingStore(tmp_path)
    found = list(repeated_keys(write(store), list(CHUNKS)))
    assert [(one.entry.key, str(one.shard), str(other.shard)) for one, other in found] == [
        ("o", "0001-0000001", "0001-0000002")
    ]
    ranges = [name.range_number for name in store.opened]
    assert ranges == sorted(ranges)
