"""WebDataset's tar shards as DATA."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch

from cifar_ray.errors import InputError
from cifar_ray.training.data.dataset import decode_all, read_folder, read_shards
from cifar_ray.training.data.sources import check_data, geometry, load, shard_files
from cifar_ray.training.evaluation.held_out import load_held_out
from tests.drawing import draw_classes

NAMES = ("blue", "green", "red")


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))


def samples_of(classes: Path, kind: str) -> dict[str, bytes]:
    """Return all images of a folder of classes as members, each with its label behind it."""
    members: dict[str, bytes] = {}
    for label, name in enumerate(NAMES):
        contents = {"cls": f"{label}\n", "txt": name, "json": json.dumps({"label": name, "w": 1})}
        for path in sorted((classes / name).iterdir()):
            members[f"./{name}/{path.stem}.png"] = path.read_bytes()
            members[f"./{name}/{path.stem}.{kind}"] = contents[kind].encode()
    return members


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    draw_classes(tmp_path / "classes", each=4)
    return tmp_path / "classes"


@pytest.mark.parametrize("kind", ["cls", "txt", "json"])
def test_shards_hold_the_images_and_labels_of_the_folder_that_they_were_made_of(
    classes: Path, tmp_path: Path, kind: str
) -> None:
    members = list(samples_of(classes, kind).items())
    write_tar(tmp_path / "shards" / "train-000.tar", dict(members[:10]))
    write_tar(tmp_path / "shards" / "train-001.tar", dict(members[10:]))
    check_data(str(tmp_path / "shards"))
    data, expected = load(str(tmp_path / "shards"), 32), load(str(classes), 32)
    assert (data.name, data.test) == ("shards", None)
    assert data.train.label_names == (("0", "1", "2") if kind == "cls" else NAMES)
    assert torch.equal(data.train.images, expected.train.images)
    assert torch.equal(data.train.labels, expected.train.labels)
    assert data.train.size_range == expected.train.size_range


def test_a_file_of_decoded_shards_is_found_again_until_a_shard_changes(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_RAY_CACHE", str(tmp_path / "cache"))
    shard = tmp_path / "train.tar"
    for change in (False, True):
        members = samples_of(classes, "txt")
        if change:
            members["./blue/00.png"] = members["./blue/01.png"]
        write_tar(shard, members)
        decoded = decode_all(read_shards(shard_files(str(shard))), geometry(32), memory_bytes=0)
        assert decoded.is_mapped
        assert bool(torch.equal(decoded.images[0], decoded.images[1])) is change


def test_test_shards_are_the_test_images_and_evaluation_takes_them(
    classes: Path, tmp_path: Path
) -> None:
    members = list(samples_of(classes, "txt").items())
    write_tar(tmp_path / "shards" / "train-0.tar", dict(members))
    write_tar(tmp_path / "shards" / "test-0.tar", dict(members[-4:]))
    data = load(str(tmp_path / "shards"), 32)
    assert data.test is not None
    assert data.test.labels.tolist() == [2, 2]
    held_out = load_held_out(str(tmp_path / "shards"), ("red", "green", "blue"))
    assert (held_out.split, held_out.labels.tolist()) == ("test", [0, 0])
    assert list(held_out.names) == ["test-0.tar, ./red/02.png", "test-0.tar, ./red/03.png"]
    pixels = held_out.pixels([1], geometry(32))
    expected = decode_all(read_folder(str(classes)), geometry(32)).images[-1]
    assert torch.equal(torch.from_numpy(pixels[0]), expected)


def test_archives_that_are_appended_to_one_another_are_read_to_the_last(
    classes: Path, tmp_path: Path
) -> None:
    members = list(samples_of(classes, "cls").items())
    whole = b""
    for part in (members[:6], members[6:]):
        write_tar(tmp_path / "part.tar", dict(part))
        whole += (tmp_path / "part.tar").read_bytes()
    (tmp_path / "whole.tar").write_bytes(whole)
    assert len(read_shards([tmp_path / "whole.tar"]).images) == 12


def test_names_and_numbers_beside_one_another_are_names(classes: Path, tmp_path: Path) -> None:
    png = next((classes / "red").iterdir()).read_bytes()
    members = {"1.png": png, "1.cls": b"7", "2.png": png, "2.cls": b"seven"}
    write_tar(tmp_path / "d.tar", members)
    assert read_shards([tmp_path / "d.tar"]).label_names == ("7", "seven")


def test_cls_is_believed_before_a_caption_and_json_without_a_label_is_no_label(
    classes: Path, tmp_path: Path
) -> None:
    png = next((classes / "red").iterdir()).read_bytes()
    members = {"1.png": png, "1.txt": b"a red square", "1.json": b'{"width": 32}', "1.cls": b"red"}
    write_tar(tmp_path / "d.tar", {**members, "._1.png": b"", "readme.md": b"", "2.txt.bak": b""})
    assert read_shards([tmp_path / "d.tar"]).label_names == ("red",)


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"a/1.png": b"x"}, r"d\.tar, a/1 has no label beside it"),
        ({"1.cls": b"3"}, r"d\.tar, 1 has 0 images"),
        ({"1.png": b"x", "1.seg.png": b"x", "1.cls": b"3"}, "1 has 2 images"),
        ({"1.png": b"x", "1.json": b"{"}, r"1\.json: "),
        ({}, "no image with a label"),
    ],
)
def test_samples_that_cannot_be_used_are_named(
    tmp_path: Path, members: dict[str, bytes], told: str
) -> None:
    write_tar(tmp_path / "d.tar", members)
    with pytest.raises(InputError, match=told):
        read_shards([tmp_path / "d.tar"])


@pytest.mark.parametrize("blocks", [2, 3, 4])
def test_an_archive_that_was_cut_is_told(classes: Path, tmp_path: Path, blocks: int) -> None:
    """Cut behind the label, behind the next header, within its image."""
    png = next((classes / "red").iterdir()).read_bytes().ljust(1000, b"\0")
    write_tar(tmp_path / "d.tar", {"1.cls": b"3", "1.png": png})
    content = (tmp_path / "d.tar").read_bytes()
    (tmp_path / "d.tar").write_bytes(content[: blocks * 512])
    with pytest.raises(InputError, match=r"d\.tar is no whole tar archive"):
        read_shards([tmp_path / "d.tar"])


def test_a_compressed_archive_is_told_from_a_plain_one(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "d.tar", "w:gz") as tar:
        tar.add(__file__)
    with pytest.raises(InputError, match="not compressed ones"):
        read_shards([tmp_path / "d.tar"])


def test_a_folder_of_both_kinds_is_refused(tmp_path: Path) -> None:
    for name in ("a.tar", "b.parquet"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="of one kind"):
        shard_files(str(tmp_path))
