"""The stores that are labelled, made in a temporary folder: `STORES` names them."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from benchmarks.measuring import REPOSITORY
from tests.drawing import draw

DATA = Path(os.environ.get("CIFAR_RAY_DATA", REPOSITORY.parent / "shared"))
LARGE = (4000, 3000)


def drawn(folder: Path) -> None:
    """2,000 drawn 32×32 JPEG files, for machines without data."""
    rng = random.Random(0)
    for number in range(2000):
        draw(rng, (32, 32), "RGB").save(folder / f"{number:05}.jpg")


def cifar(folder: Path) -> None:
    """CIFAR-10's test images as they are, JPEG files of 32×32."""
    images = pq.read_table(DATA / "cifar10" / "test.parquet", columns=["image"])["image"]
    for number, image in enumerate(images):
        (folder / f"{number:05}.jpg").write_bytes(image.as_py())


def photos(folder: Path) -> None:
    """The 96 photos ten times over."""
    for photo in photo_files():
        for copy in range(10):
            shutil.copyfile(photo, folder / f"{photo.stem}-{copy}.jpg")


def large(folder: Path) -> None:
    """The 96 photos at 12 megapixels."""
    for photo in photo_files():
        with Image.open(photo) as image:
            width, height = LARGE if image.width >= image.height else LARGE[::-1]
            enlarged = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        enlarged.save(folder / f"{photo.stem}.jpg", quality=90)


def photo_files() -> list[Path]:
    """Return the photos, in order."""
    found = sorted((DATA / "photos").glob("*.JPEG"))
    if not found:
        raise SystemExit(f"There are no photos below {DATA}; name the data by CIFAR_RAY_DATA.")
    return found


STORES: dict[str, Callable[[Path], None]] = {
    make.__name__: make for make in (drawn, cifar, photos, large)
}
