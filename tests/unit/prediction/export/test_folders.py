"""Folders by label: each image under its own label, whatever labels and files are called."""

import os
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cifar_ray.errors import InputError
from cifar_ray.prediction.export import folders
from cifar_ray.prediction.export.folders import Sorted, copy_file, export_folders, link_file
from cifar_ray.prediction.export.names import FolderNames, safe_name
from tests.drawing import draw_folder
from tests.unit.prediction.finished_run import FinishedRun, finish_run

LABELS = ("../up", "Cat", "cat")


def nothing(rows: int) -> None:
    """Show nothing."""


@pytest.fixture
def run(tmp_path: Path) -> FinishedRun:
    images = draw_folder(tmp_path / "images", count=30)
    for folder in ("x", "y"):
        (tmp_path / "images" / folder).mkdir()
        data = images[0].read_bytes() + folder.encode()
        (tmp_path / "images" / folder / "same.jpg").write_bytes(data)
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no picture")
    return finish_run(tmp_path / "images", tmp_path / "out", labels=LABELS)


def exported(folder: Path) -> dict[bytes, str]:
    """Return the folder of each file, by its content."""
    return {path.read_bytes(): path.parent.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("copy", [True, False])
def test_every_image_lies_under_its_own_label(run: FinishedRun, tmp_path: Path, copy: bool) -> None:
    target = tmp_path / "sorted"
    found = export_folders(run.store, target, copy, nothing)
    assert found == Sorted(exported=32, without_label=1)
    names = FolderNames()
    rows = pq.read_table(tmp_path / "out" / "predictions").to_pylist()
    expected = {
        (tmp_path / "images" / row["key"]).read_bytes(): names.of(row["label"])
        for row in rows
        if row["status"] == "ok"
    }
    assert exported(target) == expected
    assert len({name.casefold() for name in names.names.values()}) == 3
    assert {path.parent.parent for path in target.rglob("*.*")} == {target}
    a_file = next(path for path in target.rglob("*.jpg"))
    assert a_file.stat().st_nlink == (1 if copy else 2)


def test_where_there_are_no_hard_links_symbolic_ones_and_then_copies_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: bytes, target: Path) -> None:
        raise OSError(1, "Operation not permitted")

    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to("a")
    link_file(os.fsencode(tmp_path / "link"), tmp_path / "of-link")
    assert (tmp_path / "of-link").samefile(tmp_path / "a")
    assert not (tmp_path / "of-link").is_symlink()
    monkeypatch.setattr(folders.os, "link", refuse)
    link_file(os.fsencode(tmp_path / "a"), tmp_path / "symbolic")
    assert (tmp_path / "symbolic").is_symlink()
    monkeypatch.setattr(folders.os, "symlink", refuse)
    link_file(os.fsencode(tmp_path / "a"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"a"
    assert not (tmp_path / "copy").is_symlink()


def test_a_file_that_changed_since_gets_no_label(run: FinishedRun, tmp_path: Path) -> None:
    (tmp_path / "images" / "x" / "same.jpg").write_bytes(b"something else")
    (tmp_path / "images" / "y" / "same.jpg").unlink()
    found = export_folders(run.store, tmp_path / "sorted", False, nothing)
    assert (found.exported, found.changed) == (30, 2)
    assert b"something else" not in exported(tmp_path / "sorted")


def test_a_file_whose_name_is_not_utf8_is_found(tmp_path: Path) -> None:
    draw_folder(tmp_path / "images", count=3)
    raw = os.fsencode(tmp_path / "images") + b"/\xff\xfe.png"
    with open(raw, "wb") as file:
        file.write((tmp_path / "images" / "b" / "c" / "drawn-0001.png").read_bytes() + b"x")
    run = finish_run(tmp_path / "images", tmp_path / "out")
    assert export_folders(run.store, tmp_path / "sorted", True, nothing).exported == 4


def test_a_folder_with_something_in_it_and_a_place_in_the_run_are_refused(
    run: FinishedRun, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="not an empty folder"):
        export_folders(run.store, tmp_path / "images", False, nothing)
    with pytest.raises(InputError, match="lies inside the run"):
        export_folders(run.store, tmp_path / "out" / "predictions", False, nothing)


def test_images_that_are_no_files_of_this_machine_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.jpg", b"x")
    for uri in ("s3://bucket/a.jpg", f"file://{tmp_path}/images.zip#a.jpg"):
        with pytest.raises(InputError, match="takes files of this machine"):
            folders.local_path(uri)
    assert folders.local_path("file:///a%23b%FF") == b"/a#b\xff"


@pytest.mark.parametrize(
    "text",
    ["cat", "Bär", "a b.jpg", "photo.2024.jpeg", "日本.png", "README"],
)
def test_a_harmless_name_stays(text: str) -> None:
    assert safe_name(text) == text


@pytest.mark.parametrize(
    "text",
    *[
        [
            *("..", ".", "", "../../etc/passwd", "a/b", "a\\b", "C:", "CON", "nul.txt", "COM1"),
            *("-rf", ".hidden", "end.", "end ", "a\nb", "a\x1b[2J", "a\0b", "x" * 500, "ä" * 200),
            "a%2fb",
        ]
    ],
)
def test_a_harmful_name_becomes_one_that_is_good_anywhere_and_nobody_elses(text: str) -> None:
    name = safe_name(text)
    assert name == Path(name).name
    assert name.isprintable()
    assert not set(name) & set('<>:"/\\|?*%')
    assert not name.startswith((".", "-"))
    assert not name.endswith((".", " "))
    assert len(name.encode()) < 150
    assert name.partition(".")[0].upper() not in ("CON", "NUL", "COM1", "")
    assert safe_name(text) == name != safe_name(text + "!")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no such limit")
def test_a_copy_that_fails_leaves_no_half_of_an_image(tmp_path: Path) -> None:
    import resource

    (tmp_path / "a").write_bytes(b"a" * 1000)
    _, most = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))
    try:
        with pytest.raises(OSError, match="File too large"):
            copy_file(os.fsencode(tmp_path / "a"), tmp_path / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "copy").exists()
