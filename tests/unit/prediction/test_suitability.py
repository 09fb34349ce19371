"""The look at the first images, which happens before any worker is there."""

import random
import subprocess
import sys
from pathlib import Path

import psutil

from cifar_ray.models.bundle import Bundle
from cifar_ray.prediction.sources.folder import FolderListing
from cifar_ray.prediction.sources.folder_fetch import FolderFetcher
from cifar_ray.prediction.suitability import unlike_training_images
from tests.conftest import REPOSITORY
from tests.drawing import draw
from tests.hostile import hooked_path, hostile_png
from tests.unit.prediction.sources.forms import ALL

MEMORY = 2**30
GIF_SCREEN = b"GIF89a" + b"\xff" * 4


def draw_large(folder: Path, kinds: tuple[str, ...]) -> None:
    folder.mkdir()
    for number, kind in enumerate(kinds):
        draw(random.Random(number), (500, 375), "RGB").save(folder / f"{number}.{kind}")


def warnings(folder: Path) -> tuple[str, ...]:
    entries = list(FolderListing(folder, ALL).entries(None))
    return unlike_training_images(entries, FolderFetcher(folder), Bundle.default().spec, MEMORY)


def test_sizes_of_every_format_are_told_and_what_is_broken_is_left_out(tmp_path: Path) -> None:
    for kinds in (("jpg", "png"), ("gif", "bmp", "webp", "tif")):
        folder = tmp_path / kinds[0]
        draw_large(folder, kinds)
        for name, data in (("empty", b""), ("text", b"no picture"), ("broken", GIF_SCREEN)):
            (folder / name).write_bytes(data)
        (told,) = warnings(folder)
        assert "about 500×375 pixels" in told
    assert not [p for p in psutil.Process().children() if "decode_child" in " ".join(p.cmdline())]


def test_a_file_that_crashes_a_decoder_does_not_crash_this_process(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    draw_large(folder, ("png", "gif"))
    (folder / "0.png").write_bytes(hostile_png((folder / "0.png").read_bytes(), b"crash"))
    code = f"""from pathlib import Path
from tests.unit.prediction.test_suitability import warnings
print(warnings(Path({str(folder)!r})))"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={"PYTHONPATH": f"{hooked_path()}:{REPOSITORY}", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
    )
    assert "about 500×375 pixels" in done.stdout, done.stderr
