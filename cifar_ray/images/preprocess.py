"""From decoded pixels to the network's input size: torchvision's bytes without torchvision.

`resize` is `torchvision.transforms.Resize(int)` (the short side; the long one in proportion),
`squash` is `Resize((n, n))`, `crop` is `CenterCrop(n)`, all of them on Pillow images.
Normalisation is the classifier's (`models/classifier.py`), since it runs on the device.
"""

from typing import Literal, Self

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cifar_ray.errors import ImageFault
from cifar_ray.images.decode import MAX_PIXELS, DecodeOptions, Decoder, Pixels

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Channels = tuple[float, float, float]

LEAST_SCALED_PX = 256
"""That a JPEG decoded at a fraction keeps on its short side. Reducing in two steps is not quite
reducing in one: inputs of 32 pixels from less than this change one label in a hundred to twelve
(benchmarks/results/predict.md)."""

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Preprocess(BaseModel):
    """How an image becomes an input; travels with the weights.

    Exactly one of `resize` and `squash` is given; `crop` is optional after `squash`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: int | None = Field(None, gt=0)
    """Short side in pixels, before the crop."""
    squash: int | None = Field(None, gt=0)
    """Both sides in pixels, whatever the proportions."""
    crop: int | None = Field(None, gt=0)
    """Side of the square cut from the middle."""
    interpolation: Interpolation = "bilinear"
    mean: Channels
    """Red, green, blue, of pixels scaled to [0, 1]."""
    std: Channels

    @model_validator(mode="after")
    def _gives_a_square(self) -> Self:
        if (self.resize is None) == (self.squash is None):
            raise ValueError("give one of resize (short side) and squash (both sides)")
        if self.resize is not None and self.crop is None:
            raise ValueError("resize needs crop, since a network takes square images")
        if self.crop is not None and self.crop > self.scale_to:
            raise ValueError(f"crop {self.crop} is larger than the resized side {self.scale_to}")
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")
        return self

    @property
    def scale_to(self) -> int:
        """Pixels that the short side must have, so that resizing enlarges no scaled decode."""
        return self.squash or self.resize or 0

    @property
    def input_size(self) -> int:
        """Side of the square that `apply` returns."""
        return self.crop or self.scale_to

    def decode_options(
        self, decoder: Decoder, scaling: bool, max_pixels: int = MAX_PIXELS
    ) -> DecodeOptions:
        """Return what `decode` needs; `scaling` lets large JPEG be decoded at a fraction."""
        scale_to = max(self.scale_to, LEAST_SCALED_PX) if scaling else None
        return DecodeOptions(decoder, scale_to, max_pixels)

    def apply(self, pixels: Pixels) -> Pixels:
        """Map H×W×3 uint8 to contiguous S×S×3 uint8; the input itself if it has that size.

        Raises `ImageFault` for an image so narrow that resizing its short side would make it huge.
        """
        height, width = pixels.shape[:2]
        size = self._resized(width, height)
        if size[0] * size[1] > MAX_PIXELS:
            raise ImageFault("too_large", "the image is too narrow for its length to be resized")
        crop = self.crop
        if size == (width, height) and crop in (None, width) and width == height:
            return np.ascontiguousarray(pixels)
        image = Image.fromarray(pixels)
        if size != (width, height):
            image = image.resize(size, _RESAMPLING[self.interpolation])
        if crop is not None:
            left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
            image = image.crop((left, top, left + crop, top + crop))
        return np.asarray(image)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.squash is not None:
            return self.squash, self.squash
        short, long = sorted((width, height))
        if self.resize is None or short == self.resize:
            return width, height
        other = int(self.resize * long / short)
        return (self.resize, other) if width <= height else (other, self.resize)
