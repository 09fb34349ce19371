"""The store that the demo labels: images with or without truth, and broken files among them."""

import csv
import io
import os
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFilter

from cifar_ray.cli.downloads import download_bar
from cifar_ray.images.labels import CIFAR10
from cifar_ray.models.cache import cache_folder
from cifar_ray.training.data.download import DATA, download_cifar10

MAX_IMAGES = 2000
NUM_DRAWN = 300
IMAGES_A_FOLDER = 100
RECORD_BYTES = 1 + 3 * 32 * 32
TEST_FILES = ("test.parquet", "test_batch.bin", "cifar-10-batches-bin/test_batch.bin")

LabelledFile = tuple[str, bytes, str | None]
"""Extension, content, and the true label where one is known."""


@dataclass(frozen=True)
class DemoStore:
    """What was made. `truth` is empty if nobody knows it; it lies outside of the store."""

    folder: Path
    origin: str
    num_images: int
    num_broken: int
    truth: dict[str, str]


def make_store(home: Path, max_images: int = MAX_IMAGES, download: bool = False) -> DemoStore:
    """Write `home/images`, and `home/truth.csv` if the truth is known."""
    folder = home / "images"
    test_file = find_cifar10(download)
    files = draw_files(min(NUM_DRAWN, max_images)) if test_file is None else read_cifar10(test_file)
    truth: dict[str, str] = {}
    num_images = 0
    for number, (extension, content, label) in enumerate(islice(files, max_images)):
        # Numbers, so that no name tells the label.
        key = f"{number // IMAGES_A_FOLDER:02}/{number:05}{extension}"
        write(folder / key, content)
        num_images += 1
        if label is not None:
            truth[key] = label
    broken = broken_files()
    for number, (name, content) in enumerate((broken | other_files()).items()):
        write(folder / f"{number % -(-num_images // IMAGES_A_FOLDER):02}/{name}", content)
    if truth:
        with (home / "truth.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("key", "label"), *sorted(truth.items())])
    origin = f"{NUM_DRAWN} drawn images" if test_file is None else f"CIFAR-10, {test_file}"
    return DemoStore(folder, origin, num_images, len(broken), truth)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def find_cifar10(download: bool) -> Path | None:
    """Return the test images, under $CIFAR_RAY_DATA, in the cache, or downloaded if asked for."""
    roots = [cache_folder() / DATA]
    if named := os.environ.get("CIFAR_RAY_DATA"):
        roots = [Path(named) / "cifar10", Path(named), *roots]
    found = next(
        (root / name for root in roots for name in TEST_FILES if (root / name).is_file()), None
    )
    if found is None and download:
        with download_bar("CIFAR-10") as show:
            return download_cifar10(progress=show) / "test_batch.bin"
    return found


def read_cifar10(path: Path) -> Iterator[LabelledFile]:
    """Yield the images of a Parquet file as they are, those of the binary form as PNG."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(256, columns=["image", "label"]):
                for row in batch.to_pylist():
                    yield ".jpg", row["image"], CIFAR10[row["label"]]
        return
    with path.open("rb") as records:
        while record := records.read(RECORD_BYTES):
            pixels = np.frombuffer(record, np.uint8, offset=1).reshape(3, 32, 32)
            image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            yield ".png", encode(image, "PNG"), CIFAR10[record[0]]


def draw_files(number: int, seed: int = 0) -> Iterator[LabelledFile]:
    rng = random.Random(seed)
    for _ in range(number):
        yield ".jpg", encode(draw(rng), "JPEG"), None


def draw(rng: random.Random, side: int = 32) -> Image.Image:
    """Draw a ground under a sky with some round and angular things, softened as a lens would."""
    large = 4 * side
    image = Image.new("RGB", (large, large), colour(rng, 120))
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((0, rng.randrange(large // 2, large), large, large), fill=colour(rng, 40))
    for _ in range(rng.randint(1, 3)):
        left, top = rng.randrange(large * 2 // 3), rng.randrange(large * 2 // 3)
        box = (left, top, left + rng.randint(20, large // 2), top + rng.randint(20, large // 2))
        shape = rng.choice((canvas.ellipse, canvas.rectangle, canvas.pieslice))
        angles = {"start": 180, "end": 360} if shape == canvas.pieslice else {}
        shape(box, fill=colour(rng, 0), **angles)
    soft = image.filter(ImageFilter.GaussianBlur(3))
    return soft.resize((side, side), Image.Resampling.LANCZOS)


def colour(rng: random.Random, least: int) -> tuple[int, ...]:
    return tuple(rng.randint(least, 255) for _ in range(3))


def encode(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def broken_files() -> dict[str, bytes]:
    """A dozen files as stores hold them, none of which can get a label."""
    picture = draw(random.Random(1), side=96)
    jpeg, png, gif = (encode(picture, form) for form in ("JPEG", "PNG", "GIF"))
    header = struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    return {
        "broken-empty.jpg": b"",
        "broken-zeros.jpg": bytes(4096),
        "broken-half.jpg": jpeg[: len(jpeg) // 2],
        "broken-half.png": png[: len(png) // 2],
        "broken-half.gif": gif[: len(gif) // 2],
        "broken-header-only.jpg": jpeg[:20],
        "broken-damaged.png": png[:60] + bytes(byte ^ 0xFF for byte in png[60:90]) + png[90:],
        "broken-huge.png": png[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")),
        "broken-floats.tif": encode(Image.new("F", (8, 8), 0.5), "TIFF"),
        "text.jpg": b"Here should be an image.\n",
        "error-page.png": b"<!DOCTYPE html><title>404 Not Found</title>\n",
        "document.jpg": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    }


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def other_files() -> dict[str, bytes]:
    """What is skipped, and a file with a wrong extension, which gets its label all the same."""
    return {
        "misnamed.jpg": encode(draw(random.Random(2)), "PNG"),
        "notes.txt": b"Taken in spring.\n",
        "clip.mp4": b"\0\0\0\x18ftypmp42",
        ".DS_Store": b"\0\0\0\1Bud1",
    }
