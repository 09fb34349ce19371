"""Are these images like those that the model was trained on? If not, labels are guesses."""

import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from statistics import fmean

import pyarrow.parquet as pq

from cifar_ray.config.labelling import RunRecord
from cifar_ray.errors import ImageFault
from cifar_ray.images.formats import sniff
from cifar_ray.images.jpeg_header import read_jpeg_header
from cifar_ray.models.bundle_spec import BundleSpec
from cifar_ray.prediction.care.careful_decoding import CarefulDecoding
from cifar_ray.prediction.care.watchdog import Limits, Watchdog
from cifar_ray.prediction.sources import Entry, Fetcher
from cifar_ray.runs import LabellingRun, ShardName
from cifar_ray.storage import Store

SIZE_TOLERANCE = 2.0
"""How far beyond the training images' sizes the median image may lie, as a factor."""

MINIMUM_JUDGED, MAXIMUM_JUDGED = 20, 128
"""Images over which confidence is averaged."""
LEAST_CONFIDENCE = 0.75
"""Of the accuracy on test images; a class that is hard for the model stays above it."""
SECONDS = 15.0
"""After which the images looked at so far have to do; also what one of them may take."""
_PNG_SIZE = struct.Struct(">16xII")


def unlike_training_images(
    entries: Sequence[Entry], fetcher: Fetcher, spec: BundleSpec, memory_bytes: int
) -> tuple[str, ...]:
    """Return a warning if the images' sizes are not those of the training images.

    No file can crash this process; `memory_bytes` is what decoding one may take.
    """
    trained = spec.trained_on
    if trained.image_width is None or trained.image_height is None:
        return ()
    with closing(Watchdog(Limits(SECONDS, memory_bytes), armed=False)) as watchdog:
        options = spec.preprocess.decode_options("pillow", scaling=True)
        with closing(CarefulDecoding(options, spec.preprocess, watchdog)) as careful:
            sizes = list(_sizes(entries, fetcher, careful))
    if not sizes:
        return ()
    width = sorted(width for width, _ in sizes)[len(sizes) // 2]
    height = sorted(height for _, height in sizes)[len(sizes) // 2]
    (low_w, high_w), (low_h, high_h) = trained.image_width, trained.image_height
    fits = (
        low_w / SIZE_TOLERANCE <= width <= high_w * SIZE_TOLERANCE
        and low_h / SIZE_TOLERANCE <= height <= high_h * SIZE_TOLERANCE
    )
    if fits:
        return ()
    return (
        f"The first images are about {width}×{height} pixels; the model was trained on "
        f"{_range(low_w, high_w)}×{_range(low_h, high_h)}. {_what_to_do(spec)}",
    )


def doubt_warning(
    store: Store, shard: ShardName, record: RunRecord, spec: BundleSpec
) -> str | None:
    """Return a warning if the model doubts the first images of a shard, whose part is there.

    A calibrated model is right as often as it is confident on average, about images of its own
    kind (S. Garg et al., "Leveraging Unlabeled Data to Predict Out-of-Distribution Performance",
    arXiv:2201.04234). What to do is said unless a warning of `run.json` says it.
    """
    accuracy = spec.metrics.get("accuracy")
    if not isinstance(accuracy, float) or spec.temperature is None:
        return None
    confidences = _first_confidences(store, shard)
    if len(confidences) < MINIMUM_JUDGED:
        return None
    confidence = fmean(confidences)
    if confidence >= LEAST_CONFIDENCE * accuracy:
        return None
    text = (
        f"The model's confidence in the first images is {confidence:.0%} on average, and it was "
        f"right about {accuracy:.0%} of images of its own kind: these seem to be of another."
    )
    return text if record.warnings else f"{text} {_what_to_do(spec)}"


def _first_confidences(store: Store, shard: ShardName) -> list[float]:
    with store.open(LabellingRun.part(shard)) as file:
        batches = pq.ParquetFile(file).iter_batches(MAXIMUM_JUDGED, columns=["confidence"])
        first = next(batches, None)
    values = first["confidence"].to_pylist() if first is not None else []
    return [value for value in values if value is not None]


def _what_to_do(spec: BundleSpec) -> str:
    return (
        f"Its labels will be guesses among {', '.join(spec.labels[:10])}"
        f"{' …' if len(spec.labels) > 10 else ''}. "
        "For ImageNet's classes give --model torchvision:resnet50; for classes of your own, "
        "`cifar-ray train FOLDER` with a sub-folder a class, and --model RUN/bundle."
    )


def _sizes(
    entries: Sequence[Entry], fetcher: Fetcher, careful: CarefulDecoding
) -> Iterator[tuple[int, int]]:
    until = time.monotonic() + SECONDS
    for entry in entries:
        if time.monotonic() > until:
            return
        with suppress(ImageFault):
            yield _size(fetcher.fetch(entry), careful)


def _size(data: bytes, careful: CarefulDecoding) -> tuple[int, int]:
    """Return width and height; `ImageFault` where there are none to be read."""
    name = sniff(data)
    if name == "JPEG" and (header := read_jpeg_header(data)) is not None:
        return header.width, header.height
    if name == "PNG" and len(data) >= _PNG_SIZE.size:
        width, height = _PNG_SIZE.unpack_from(data)
        return width, height
    _, width, height = careful.prepare(data)
    return width, height


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
