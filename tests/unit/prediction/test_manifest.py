from collections.abc import Iterator
from pathlib import Path

import pytest

from cifar_ray.prediction.manifest import Manifest, shard_size
from cifar_ray.prediction.sources import Entry, Skipped
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import FolderStore


class Listing:
    """A store of numbered keys; every third thing found is no image."""

    def __init__(self, number: int) -> None:
        self.items: list[Entry | Skipped] = []
        for i in range(number):
            self.items.append(Entry(f"{i:06d}.jpg", f"v{i}", i))
            if i % 3 == 0:
                self.items.append(Skipped(".txt"))

    def entries(self, after: str | None) -> Iterator[Entry | Skipped]:
        position = 0
        if after is not None:
            listed = [i.key if isinstance(i, Entry) else None for i in self.items]
            position = listed.index(after) + 1
        return iter(self.items[position:])


def test_shard_sizes_follow_from_the_number_alone() -> None:
    sizes = [shard_size(ShardName(0, n), None) for n in (0, 7, 8, 31, 32, 255, 256, 10**6)]
    assert sizes == [128, 128, 512, 512, 2048, 2048, 16384, 16384]
    assert shard_size(ShardName(1, 0), None) == 16384
    assert shard_size(ShardName(0, 0), 10) == 10


def test_a_billion_images_make_some_61000_parts() -> None:
    images = parts = 0
    while images < 10**9:
        images += shard_size(ShardName(0, parts), None)
        parts += 1
    assert 60_000 < parts < 62_000


def test_every_entry_is_in_one_shard_and_the_counts_add_up(tmp_path: Path) -> None:
    listing, manifest = Listing(100), Manifest(FolderStore(tmp_path), 16)
    names = list(manifest.shards(0, listing))
    assert [str(name) for name in names] == [f"0000-{n:07d}" for n in range(7)]
    entries = [entry for name in names for entry in manifest.entries(name)]
    assert entries == [item for item in listing.items if isinstance(item, Entry)]
    counts = [manifest.counts(name) for name in names]
    end = manifest.range_end(0)
    assert end is not None
    assert sum(c.found for c in counts) + end.found == len(listing.items)
    skipped = sum(c.skipped.get(".txt", 0) for c in counts) + end.skipped.get(".txt", 0)
    assert skipped == 34
    assert [c.digest for c in counts] == [manifest.chunk(name).digest for name in names]


@pytest.mark.parametrize("stop_after", range(8))
def test_an_interrupted_listing_goes_on_and_gives_the_same_manifest(
    tmp_path: Path, stop_after: int
) -> None:
    whole = Manifest(FolderStore(tmp_path / "whole"), 16)
    broken = Manifest(FolderStore(tmp_path / "broken"), 16)
    expected = [(n, whole.counts(n)) for n in whole.shards(0, Listing(100))]
    running = broken.shards(0, Listing(100))
    for _ in range(stop_after):
        next(running, None)
    running.close()  # type: ignore[attr-defined]
    assert [(n, broken.counts(n)) for n in broken.shards(0, Listing(100))] == expected
    assert broken.range_end(0) == whole.range_end(0)


def test_a_chunk_that_another_run_listed_first_holds_and_the_listing_goes_on_from_it(
    tmp_path: Path,
) -> None:
    store = FolderStore(tmp_path)
    first, second = Manifest(store, 10), Manifest(store, 10)
    slow = second.shards(0, Listing(30))
    next(slow)
    assert [str(n) for n in first.shards(0, Listing(30))] == [f"0000-{n:07d}" for n in range(3)]
    rest = list(slow)
    assert [n.number for n in rest] == [1, 2]
    keys = [e.key for n in first.existing(0) for e in first.entries(n)]
    assert len(keys) == len(set(keys)) == 30


def test_a_listing_that_was_paused_adds_nothing_to_a_range_that_another_run_has_finished(
    tmp_path: Path,
) -> None:
    store = FolderStore(tmp_path)
    paused = Manifest(store, 10).shards(0, Listing(40))
    next(paused)
    finished = list(Manifest(store, 10).shards(0, Listing(25)))
    assert list(paused) == finished[1:]
    assert Manifest(store, 10).existing(0) == finished


def test_a_finished_range_is_not_listed_again(tmp_path: Path) -> None:
    manifest = Manifest(FolderStore(tmp_path), 16)
    names = list(manifest.shards(0, Listing(40)))
    (tmp_path / LabellingRun.manifest_chunk(names[0])).touch()

    class Refusing:
        def entries(self, after: str | None) -> Iterator[Entry | Skipped]:
            raise AssertionError("listed again")

    assert list(manifest.shards(0, Refusing())) == names
