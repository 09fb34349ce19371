"""What every form of a store promises alike: keys, bytes, going on, parts, and what is skipped."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import ImageFault, StoreUnavailable
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.sources import Source
from cifar_ray.storage import FolderStore
from tests.drawing import draw_folder
from tests.unit.prediction.sources.forms import (
    ALL,
    FORMS,
    draw_store,
    file_keys,
    is_manifest,
    kinds,
    listed,
    make_form,
    open_form,
)

NAMES = (
    "größe 50%.jpg",
    "a\u0308.jpg",
    "\u00e4.jpg",
    "no-extension",
    "x#y?z.png",
    "semi;colon,.jpg",
)
OTHERS = ("notes.txt", "a/000.json", "a/000.cls", ".hidden.jpg", "_tmp/x.jpg")
EVERY_FORM = pytest.mark.parametrize("form", FORMS)
CONTAINERS = pytest.mark.parametrize("form", [form for form in FORMS if not is_manifest(form)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """90 drawn images, some with odd names, and five files of other kinds."""
    return draw_store(tmp_path / "images", 90, NAMES, OTHERS)


def in_form(form: str, folder: Path, config: LabellingConfig = ALL) -> Source:
    path = make_form(form, folder, folder.parent / "packed")
    return open_form(path, folder if is_manifest(form) else None, config)


@EVERY_FORM
def test_keys_and_bytes_are_those_of_the_folder(form: str, folder: Path) -> None:
    source = in_form(form, folder)
    entries = listed(source)
    assert sorted(e.key for e in entries) == sorted(e.key for e in listed(open_form(folder)))
    fetcher = source.fetcher()
    for entry in entries:
        assert fetcher.fetch(entry) == (folder / entry.key).read_bytes()


@EVERY_FORM
def test_what_is_skipped_in_a_folder_is_skipped_in_every_form(form: str, folder: Path) -> None:
    assert kinds(in_form(form, folder)) == kinds(open_form(folder))
    assert len(listed(in_form(form, folder))) + len(OTHERS) == len(file_keys(folder))


@EVERY_FORM
def test_a_listing_goes_on_behind_any_image(form: str, folder: Path) -> None:
    source = in_form(form, folder)
    entries = listed(source)
    for position in (0, 1, 28, 29, 36, 37, 60, len(entries) - 1):
        assert listed(source, entries[position].cursor) == entries[position + 1 :]


@EVERY_FORM
def test_threads_that_read_in_any_order_get_the_right_bytes(form: str, folder: Path) -> None:
    source = in_form(form, folder)
    fetcher, entries = source.fetcher(), listed(source)
    mixed = entries[::7] + entries[::-1] + entries[::3]
    with ThreadPoolExecutor(4) as threads:
        contents = list(threads.map(fetcher.fetch, mixed))
    assert contents == [(folder / entry.key).read_bytes() for entry in mixed]


@EVERY_FORM
def test_a_sample_and_a_limit_are_those_of_the_folder(form: str, folder: Path) -> None:
    sample = LabellingConfig(sample=20, sample_seed=3)
    expected = {entry.key for entry in listed(open_form(folder, None, sample))}
    assert {entry.key for entry in listed(in_form(form, folder, sample))} == expected
    assert len(expected) == 20
    few = listed(in_form(form, folder, LabellingConfig(limit=31)))
    everything = listed(in_form(form, folder))
    assert [entry.key for entry in few] == [entry.key for entry in everything[:31]]


@EVERY_FORM
def test_include_and_exclude_mean_the_same_in_every_form(form: str, folder: Path) -> None:
    config = LabellingConfig(include=("a/*", "*.txt"), exclude=("*7.png",))
    expected = sorted(entry.key for entry in listed(open_form(folder, None, config)))
    assert sorted(entry.key for entry in listed(in_form(form, folder, config))) == expected
    assert "notes.txt" in expected


@EVERY_FORM
def test_the_manifest_of_an_interrupted_listing_is_that_of_a_whole_one(
    form: str, folder: Path, tmp_path: Path
) -> None:
    source = in_form(form, folder)
    whole = Manifest(FolderStore(tmp_path / "whole"), 16)
    expected = [(name, whole.counts(name)) for name in whole.shards(0, source.listing(0))]
    broken = Manifest(FolderStore(tmp_path / "broken"), 16)
    for number in range(1, len(expected)):
        shards = broken.shards(0, source.listing(0))
        assert [next(shards) for _ in range(number)] == [name for name, _ in expected[:number]]
        shards.close()  # type: ignore[attr-defined]
    found = [(name, broken.counts(name)) for name in broken.shards(0, source.listing(0))]
    assert found == expected
    assert broken.range_end(0) == whole.range_end(0)


@CONTAINERS
def test_a_uri_names_the_container_and_the_member(form: str, folder: Path) -> None:
    source = in_form(form, folder)
    entry = next(entry for entry in listed(source) if entry.key == "x#y?z.png")
    parts = urlsplit(source.uri(entry))
    assert Path(unquote(parts.path)) == Path(source.reference.uri)
    assert unquote(parts.fragment) == entry.key


@CONTAINERS
def test_a_container_that_was_replaced_since_gives_no_bytes_of_another_file(
    form: str, folder: Path
) -> None:
    source = in_form(form, folder)
    entries = listed(source)
    path = Path(source.reference.uri)
    path.write_bytes(path.read_bytes()[::-1])
    for entry in entries[:3]:
        with pytest.raises(ImageFault) as fault:
            source.fetcher().fetch(entry)
        assert fault.value.status == "changed"


@CONTAINERS
def test_a_container_that_is_gone_is_a_fault_of_the_store(form: str, folder: Path) -> None:
    source = in_form(form, folder)
    entry = listed(source)[0]
    Path(source.reference.uri).unlink()
    with pytest.raises(StoreUnavailable, match="No image is blamed"):
        source.fetcher().fetch(entry)


@CONTAINERS
def test_each_container_of_a_folder_counts_as_a_sub_folder(form: str, folder: Path) -> None:
    one = make_form(form, folder, folder.parent / "packed")
    names = [one.name, "more/" + one.name]
    (one.parent / "more").mkdir()
    (one.parent / names[1]).write_bytes(one.read_bytes())
    (one.parent / "README.md").write_text("what this is")
    below = [entry.key for entry in listed(open_form(one))]
    for source in (open_form(one.parent), open_form(f"{one.parent}/**/*{one.suffix}")):
        entries = listed(source)
        expected = [f"{name}/{key}" for name in sorted(names) for key in below]
        assert [entry.key for entry in entries] == expected
        fetcher = source.fetcher()
        for entry in entries[:: len(entries) // 7]:
            file = folder / entry.key.partition(one.name + "/")[2]
            assert fetcher.fetch(entry) == file.read_bytes()
        for at in (5, len(below) - 1, len(below), len(below) + 20):
            assert listed(source, entries[at].cursor) == entries[at + 1 :]
    assert ".md" in kinds(open_form(one.parent))


@CONTAINERS
def test_a_shard_never_spans_two_containers(form: str, folder: Path, tmp_path: Path) -> None:
    one = make_form(form, folder, folder.parent / "packed")
    (one.parent / f"second{one.suffix}").write_bytes(one.read_bytes())
    source = open_form(one.parent)
    manifest = Manifest(FolderStore(tmp_path / "out"), 40)
    shards = [manifest.entries(name) for name in manifest.shards(0, source.listing(0))]
    assert [len(entries) for entries in shards] == [40, 40, 16, 40, 40, 16]
    for entries in shards:
        assert len({entry.key.partition("/")[0] for entry in entries}) == 1


def test_a_folder_with_one_image_beside_containers_is_a_folder_of_images(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    draw_folder(folder, count=3)
    make_form("tar", folder, folder)
    source = open_form(folder)
    assert source.reference.kind == "folder"
    assert (len(listed(source)), kinds(source)) == (3, [".tar"])
