"""`make demo`: what it makes, labels and tells, with small stores."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cifar_ray.errors import ImageFault, InputError
from cifar_ray.images.decode import DecodeOptions, decode
from cifar_ray.images.labels import CIFAR10
from examples.demo import make_room, run_demo
from examples.demo_store import broken_files, draw_files, make_store, other_files, read_cifar10
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache without CIFAR-10."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def no_data(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide CIFAR-10, if this machine has it, and let child processes find the clone."""
    monkeypatch.delenv("CIFAR_RAY_DATA", raising=False)
    monkeypatch.setenv("CIFAR_RAY_CACHE", str(cache))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def provide_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put 240 drawn images in the place of CIFAR-10's test images; return their labels."""
    labels = [number % 10 for number in range(240)]
    images = [content for _, content, _ in draw_files(240)]
    (folder / "cifar10").mkdir(parents=True)
    pq.write_table(
        pa.table({"image": images, "label": labels}), folder / "cifar10" / "test.parquet"
    )
    monkeypatch.setenv("CIFAR_RAY_DATA", str(folder))
    return [CIFAR10[label] for label in labels]


@pytest.mark.timeout(900)
def test_demo_labels_drawn_images_and_then_those_with_a_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "demo"
    assert run_demo(home) == 0
    shown = capfd.readouterr().out
    assert "not known: the images are drawn" in shown
    assert "--model torchvision:resnet50" in shown
    assert "--model runs/mine/bundle" in shown
    receipt = json.loads((home / "labels" / "receipt.json").read_bytes())
    assert receipt["ok"] == 301  # the file with a wrong extension gets its label
    assert sum(receipt["failed"].values()) == 12
    assert receipt["found"] == 316
    query = next(line.strip() for line in shown.splitlines() if "duckdb" in line)
    if sys.platform != "win32":
        command = sys.executable + query[query.index(" -c ") :]
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        assert "count_star()" in done.stdout

    provide_cifar10(tmp_path / "data", monkeypatch)
    assert run_demo(home) == 0
    assert "of 240 images whose truth is known" in capfd.readouterr().out


def test_no_name_in_the_store_tells_a_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = provide_cifar10(tmp_path / "data", monkeypatch)
    store = make_store(tmp_path / "demo")
    names = [path.relative_to(store.folder).as_posix() for path in store.folder.rglob("*")]
    assert not [name for name in names for label in CIFAR10 if label in name]
    assert list(store.truth.values()) == truth
    with (tmp_path / "demo" / "truth.csv").open(newline="") as file:
        assert {row["key"]: row["label"] for row in csv.DictReader(file)} == store.truth
    assert store.truth.keys() <= set(names)


def test_binary_cifar10_becomes_png_with_the_same_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), np.uint8)
    records = [bytes([number]) + image.tobytes() for number, image in enumerate(pixels)]
    (tmp_path / "test_batch.bin").write_bytes(b"".join(records))
    read = list(read_cifar10(tmp_path / "test_batch.bin"))
    assert [label for _, _, label in read] == list(CIFAR10[:4])
    for (extension, content, _), expected in zip(read, pixels, strict=True):
        assert extension == ".png"
        assert (decode(content, DecodeOptions()).pixels == expected.transpose(1, 2, 0)).all()


def test_a_dozen_files_are_broken_in_many_ways_and_a_wrong_extension_is_no_fault() -> None:
    statuses = set()
    for content in broken_files().values():
        with pytest.raises(ImageFault) as fault:
            decode(content, DecodeOptions())
        statuses.add(fault.value.status)
    assert len(broken_files()) == 12
    assert len(statuses) == 6
    assert decode(other_files()["misnamed.jpg"], DecodeOptions()).width == 32


def test_demo_deletes_no_folder_that_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").touch()
    with pytest.raises(InputError, match="did not make"):
        run_demo(tmp_path / "demo")
    assert (tmp_path / "demo" / "mine.txt").is_file()


def test_demo_hides_its_folder_from_git(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    make_room(tmp_path / "demo")
    make_store(tmp_path / "demo", max_images=1)
    status = ["git", "-C", str(tmp_path), "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.check_output(status, text=True) == ""
