"""What only a folder does; what every store does alike is in tests/store/test_stores.py."""

import errno
import os
from pathlib import Path

import pytest

from cifar_ray.errors import Unfinished
from cifar_ray.storage import FolderStore


def test_names_come_with_the_times_at_which_they_were_written(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert store.written("a") == []
    for number, name in enumerate(("a/x-1", "a/x-2", "a/y")):
        store.write(name, b"")
        os.utime(tmp_path / name, (number, number))
    assert store.written("a", "x-") == [("x-1", 0.0), ("x-2", 1.0)]


def test_create_without_hard_links_still_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: object, target: object) -> None:
        if Path(str(target)).exists():
            raise FileExistsError
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    store = FolderStore(tmp_path)
    assert store.create("x", b"one")
    assert not store.create("x", b"two")
    assert store.read("x") == b"one"


def half_a_write(store: FolderStore, error: BaseException) -> None:
    with store.staged("x") as path:
        path.write_bytes(b"half")
        raise error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_as_such_and_can_be_gone_on_from(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OSError, match="No space") as told,
    ):
        full.write(b"x")
    with pytest.raises(Unfinished, match=r"No space left.*same command again"):
        half_a_write(store, told.value)
    assert not store.exists("x")
