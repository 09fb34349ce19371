"""Are these images like those that the model was trained on? If not, labels are guesses."""

import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress

from cifar_ray.errors import ImageFault
from cifar_ray.images.formats import sniff
from cifar_ray.images.jpeg_header import read_jpeg_header
from cifar_ray.models.bundle_spec import BundleSpec
from cifar_ray.prediction.care import CarefulDecoding
from cifar_ray.prediction.sources import Entry, Fetcher
from cifar_ray.prediction.watchdog import Limits, Watchdog

SIZE_TOLERANCE = 2.0
"""How far beyond the training images' sizes the median image may lie, as a factor."""

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
        f"{_range(low_w, high_w)}×{_range(low_h, high_h)}. Its labels will be guesses among "
        f"{', '.join(spec.labels[:10])}{' …' if len(spec.labels) > 10 else ''}. "
        "For ImageNet's classes give --model torchvision:resnet50; for classes of your own, "
        "`cifar-ray train FOLDER` with a sub-folder a class, and --model RUN/bundle.",
    )


def energy_warning(median: float | None, spec: BundleSpec) -> str | None:
    """Return a warning if the median energy is below that of nearly all validation images."""
    known = spec.trained_on.energy
    if median is None or known is None or median >= known.q05:
        return None
    return (
        "The model responds to the first images more weakly than to 95 % of the images that it was "
        "validated on: they seem to be of another kind, and their labels may be guesses."
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
