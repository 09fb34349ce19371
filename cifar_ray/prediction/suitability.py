"""Are these images like those that the model was trained on? If not, labels are guesses."""

import io
from collections.abc import Sequence

from PIL import Image

from cifar_ray.errors import ImageFault
from cifar_ray.images.decode import PILLOW_FAULTS
from cifar_ray.models.bundle_spec import BundleSpec
from cifar_ray.prediction.sources import Entry, Fetcher

SIZE_TOLERANCE = 2.0
"""How far beyond the training images' sizes the median image may lie, as a factor."""


def unlike_training_images(
    entries: Sequence[Entry], fetcher: Fetcher, spec: BundleSpec
) -> tuple[str, ...]:
    """Return a warning if the images' sizes are not those of the training images."""
    trained = spec.trained_on
    sizes = [size for entry in entries if (size := _size(fetcher, entry)) is not None]
    if trained.image_width is None or trained.image_height is None or not sizes:
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


def _size(fetcher: Fetcher, entry: Entry) -> tuple[int, int] | None:
    """Return width and height by the header; None where there is none to be read."""
    try:
        with Image.open(io.BytesIO(fetcher.fetch(entry))) as image:
            return image.size
    except (ImageFault, *PILLOW_FAULTS):
        return None


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
