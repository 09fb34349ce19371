"""Small pictures of labelled images, read again from where they lie."""

import base64
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from cifar_ray.errors import ImageFault, StoreUnavailable
from cifar_ray.images.decode import DecodeOptions, decode
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.reporting.tally import Place
from cifar_ray.prediction.sources import Entry, Fetcher
from cifar_ray.runs import ShardName
from cifar_ray.storage import Store

SIDE_PX = 96
JPEG_QUALITY = 80
MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 60_000_000


@dataclass(frozen=True, slots=True)
class Picture:
    """A labelled image: where it is, what it got, and itself as a `data:` uri."""

    key: str
    label: str
    score: float
    data_uri: str


def pictures(
    store: Store, manifest: Manifest, fetcher: Fetcher, places: Iterable[Place]
) -> dict[Place, Picture]:
    """Return the images of those rows that can still be read and are what was labelled."""
    by_part: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        by_part[place.part].append(place)
    found: dict[Place, Picture] = {}
    for part, wanted in by_part.items():
        numbers = [place.row for place in wanted]
        entries = manifest.chunk(ShardName.parse(part)).take(numbers).entries()
        with store.open(part) as file, pq.ParquetFile(file) as opened:
            table = opened.read(columns=["sha256", "label", "top_scores"])
        rows = table.take(numbers).to_pylist()
        for place, entry, row in zip(wanted, entries, rows, strict=True):
            picture = _picture(entry, row, fetcher)
            if picture is not None:
                found[place] = picture
    return found


def _picture(entry: Entry, row: dict[str, Any], fetcher: Fetcher) -> Picture | None:
    """Return None for a file that is gone, changed, or too large for a small picture."""
    if entry.size_bytes > MAX_FILE_BYTES:
        return None
    try:
        data = fetcher.fetch(entry)
        if hashlib.sha256(data).digest() != row["sha256"]:
            return None
        return Picture(entry.key, row["label"], row["top_scores"][0], thumbnail(data))
    except (ImageFault, StoreUnavailable):
        return None


def thumbnail(data: bytes) -> str:
    """Return an image as a `data:` uri of a JPEG of at most 96×96; `ImageFault` as of `decode`."""
    image = Image.fromarray(decode(data, DecodeOptions("pillow", SIDE_PX, MAX_PIXELS)).pixels)
    image.thumbnail((SIDE_PX, SIDE_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
