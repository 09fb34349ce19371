import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import ImageFault, InputError, StoreUnavailable
from cifar_ray.prediction.sources.base import Entry, Skipped, encode_key
from cifar_ray.prediction.sources.folder import FolderListing, file_uri
from cifar_ray.prediction.sources.folder_fetch import FolderFetcher

ALL = LabellingConfig()


def listed(root: Path, config: LabellingConfig = ALL, after: str | None = None) -> list[Entry]:
    items = FolderListing(root, config).entries(after)
    return [item for item in items if isinstance(item, Entry)]


def keys(root: Path, config: LabellingConfig = ALL, after: str | None = None) -> list[str]:
    return [entry.key for entry in listed(root, config, after)]


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_keys_come_in_byte_order_of_the_whole_key_across_folders(tmp_path: Path) -> None:
    names = ["a.jpg", "a/z.jpg", "a/b/c.jpg", "a-b.jpg", "a0.jpg", "B.jpg", "ä.jpg", "a/ä/x.jpg"]
    make(tmp_path, *names)
    assert keys(tmp_path) == sorted(names, key=str.encode)


def test_listing_goes_on_after_any_key(tmp_path: Path) -> None:
    names = ["a.jpg", "a/b.jpg", "a/c/d.jpg", "a/c.jpg", "b/a.jpg", "c.jpg", "a.b/x.jpg"]
    make(tmp_path, *names)
    everything = keys(tmp_path)
    for position, key in enumerate(everything):
        assert keys(tmp_path, after=key) == everything[position + 1 :]
    assert keys(tmp_path, after="a/zzz") == [k for k in everything if k.encode() > b"a/zzz"]


def test_images_unknown_and_no_extensions_are_listed_and_known_other_kinds_are_not(
    tmp_path: Path,
) -> None:
    make(tmp_path, "a.jpg", "b.PNG", "c", "d.xyz", "e.heic")
    make(tmp_path, "f.mp4", "g.TXT", "h.sqlite", "i.zip", "j.xmp", ".hidden.jpg", "_tmp/k.jpg")
    assert keys(tmp_path) == ["a.jpg", "b.PNG", "c", "d.xyz", "e.heic"]
    kinds = [i.kind for i in FolderListing(tmp_path, ALL).entries(None) if isinstance(i, Skipped)]
    assert sorted(kinds) == ["(hidden)", "(hidden)", ".mp4", ".sqlite", ".txt", ".xmp", ".zip"]


def test_include_names_what_is_listed_and_exclude_takes_away(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b.txt", "_c/d.jpg", "e.png")
    assert keys(tmp_path, LabellingConfig(include=("_c/*", "*.txt"))) == ["_c/d.jpg", "b.txt"]
    assert keys(tmp_path, LabellingConfig(exclude=("a*",))) == ["e.png"]


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    make(tmp_path, "folder/a.jpg")
    (tmp_path / "folder" / "loop").symlink_to(tmp_path)
    (tmp_path / "other").symlink_to(tmp_path / "folder")
    assert keys(tmp_path) == ["folder/a.jpg", "other/a.jpg"]


def test_a_link_that_leads_nowhere_is_listed_for_the_reader_to_say_so(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert keys(tmp_path) == ["gone.jpg"]


def test_a_pipe_is_skipped_and_does_not_hang_the_listing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    make(tmp_path, "a.jpg")
    assert keys(tmp_path) == ["a.jpg"]


def test_names_that_are_not_utf8_are_percent_encoded_and_still_open(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9 50%.jpg"
    with open(raw, "wb") as file:
        file.write(b"x")
    (entry,) = listed(tmp_path)
    assert entry.key == "caf%E9 50%.jpg"
    assert entry.locator == b"caf\xe9 50%.jpg"
    assert file_uri(str(tmp_path), entry).endswith("/caf%E9%2050%25.jpg")


def test_below_a_folder_whose_name_is_not_utf8_every_file_still_opens(tmp_path: Path) -> None:
    make(tmp_path, "a/x.jpg", "z.jpg")
    os.rename(tmp_path / "a", os.fsencode(tmp_path) + b"/caf\xe9")
    first, last = listed(tmp_path)
    assert (first.key, first.locator) == ("caf%E9/x.jpg", b"caf\xe9/x.jpg")
    assert (last.key, last.locator) == ("z.jpg", None)
    assert FolderFetcher(tmp_path).fetch(first) == b"a/x.jpg"
    assert keys(tmp_path, after="caf%E9/x.jpg") == ["z.jpg"]


def test_both_unicode_forms_of_a_name_are_two_keys(tmp_path: Path) -> None:
    make(tmp_path, "\u00e4.jpg", "a\u0308.jpg")
    assert len(set(keys(tmp_path))) == 2


def test_encoding_leaves_utf8_names_alone() -> None:
    assert encode_key("50% größer.jpg".encode()) == "50% größer.jpg".encode()


def test_an_entry_carries_size_and_modification_time(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg")
    status = (tmp_path / "a.jpg").stat()
    (entry,) = listed(tmp_path)
    assert (entry.size_bytes, entry.version) == (5, f"{status.st_mtime_ns}-5")


def test_a_folder_that_vanishes_while_it_is_listed_is_an_error_not_a_gap(tmp_path: Path) -> None:
    make(tmp_path, "a/x.jpg", "b/y.jpg")
    items = FolderListing(tmp_path, ALL).entries(None)
    next(items)
    os.rename(tmp_path / "b", tmp_path / "c")
    with pytest.raises(InputError, match="Cannot read the folder"):
        list(items)


def test_an_empty_folder_in_the_place_of_one_half_listed_is_not_its_end(tmp_path: Path) -> None:
    make(tmp_path / "root", "a.jpg", "b.jpg")
    (tmp_path / "root").rename(tmp_path / "away")
    (tmp_path / "root").mkdir()
    with pytest.raises(StoreUnavailable, match="went away"):
        keys(tmp_path / "root", after="a.jpg")


@pytest.mark.parametrize("name", ["a.jpg", "b/x.jpg"])
def test_a_root_that_goes_away_while_it_is_listed_is_a_fault_of_the_store(
    tmp_path: Path, name: str
) -> None:
    root = tmp_path / "root"
    make(root, "0.jpg", name)
    items = FolderListing(root, ALL).entries(None)
    next(items)
    root.rename(tmp_path / "away")
    with pytest.raises(StoreUnavailable, match="went away"):
        list(items)


def empty(folder: Path) -> None:
    """What a disk leaves that was mounted there."""
    shutil.rmtree(folder)
    folder.mkdir()


def turn_into_a_dangling_link(folder: Path) -> None:
    """What a disk leaves that was linked."""
    shutil.rmtree(folder)
    folder.symlink_to(folder.parent / "away")


@pytest.mark.parametrize("unplug", [empty, turn_into_a_dangling_link])
def test_a_disk_below_the_root_that_is_unplugged_blames_no_image(
    tmp_path: Path, unplug: Callable[[Path], None]
) -> None:
    make(tmp_path, "a.jpg", "disk/b.jpg", "disk/deep/c.jpg")
    entries = listed(tmp_path)
    fetcher = FolderFetcher(tmp_path)
    unplug(tmp_path / "disk")
    assert fetcher.fetch(entries[0]) == b"a.jpg"
    for entry in entries[1:]:
        with pytest.raises(StoreUnavailable, match=r"disk .*No image is blamed"):
            fetcher.fetch(entry)


def test_a_deleted_file_or_folder_is_not_found(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "folder/b.jpg", "folder/c.jpg", "other/d.jpg")
    _, b, _, d = listed(tmp_path)
    fetcher = FolderFetcher(tmp_path)
    (tmp_path / "folder" / "b.jpg").unlink()
    shutil.rmtree(tmp_path / "other")
    for entry in (b, d):
        with pytest.raises(ImageFault) as fault:
            fetcher.fetch(entry)
        assert fault.value.status == "not_found"
