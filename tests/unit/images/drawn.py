"""Images drawn from a seed, and their files."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def draw(width: int, height: int, seed: int = 0, channels: int = 3) -> NDArray[np.uint8]:
    """Draw smooth blobs of colour, H×W×C; photographs are smooth too, so codecs do well."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, channels), dtype=np.uint8)
    planes = [
        np.asarray(Image.fromarray(coarse[:, :, c]).resize((width, height), Image.BICUBIC))
        for c in range(channels)
    ]
    return np.stack(planes, axis=2)


def encode(image: Image.Image | NDArray[np.uint8], name: str, **options: object) -> bytes:
    """Return the file's bytes."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()
