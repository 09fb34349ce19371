"""Pictures of where in an image the model saw the evidence for a label."""

import asyncio
import base64
import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar_ray.images.decode import DecodeOptions, Decoder, Pixels, decode
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models.bundle import Bundle
from cifar_ray.serving.work import Work

if TYPE_CHECKING:
    from cifar_ray.models.classifier import Classifier

PICTURE_SIDE = 320
"""Pixels of a picture's longer side, about."""


class Explainer:
    """Grad-CAM of one bundle, one image after another; torch is loaded for the first one."""

    def __init__(self, bundle: Bundle, decoder: Decoder, max_pixels: int, work: Work) -> None:
        self._bundle, self._work = bundle, work
        scale_to = max(PICTURE_SIDE, bundle.spec.preprocess.scale_to)
        self._decode_options = DecodeOptions(decoder, scale_to, max_pixels)
        self._classifier: Classifier | None = None
        self._thread = ThreadPoolExecutor(1, "explain")

    async def explain(self, data: bytes, label_id: int) -> str:
        """Return a PNG as a data URL, for an image that was labelled before."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._explain, data, label_id)

    def _explain(self, data: bytes, label_id: int) -> str:
        with self._work.in_hand():
            return self._draw(data, label_id)

    def _draw(self, data: bytes, label_id: int) -> str:
        from cifar_ray.models.gradcam import grad_cam, overlay

        preprocess = self._bundle.spec.preprocess
        pixels = decode(data, self._decode_options).pixels
        seen = preprocess.apply(pixels)
        (heat,) = grad_cam(self._load(), np.stack([seen]), [label_id])
        picture = as_looked_at(pixels, preprocess)
        height, width = picture.shape[:2]
        enlarged = Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC)
        laid = overlay(picture, np.clip(np.asarray(enlarged), 0, 1))
        return png_url(laid)

    def _load(self) -> "Classifier":
        if self._classifier is None:
            from cifar_ray.models.classifier import Classifier

            preprocess = self._bundle.spec.preprocess
            network = self._bundle.network()
            self._classifier = Classifier(network, preprocess.mean, preprocess.std).eval()
        return self._classifier


def as_looked_at(pixels: Pixels, preprocess: Preprocess) -> Pixels:
    """Return the part of an image that the network sees, in a size and shape for people."""
    if preprocess.crop is None:  # all of it, squashed: shown in its own proportions
        height, width = pixels.shape[:2]
        factor = PICTURE_SIDE / max(width, height)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    factor = max(1, round(PICTURE_SIDE / preprocess.input_size))
    sides = {
        name: value * factor
        for name in ("resize", "squash", "crop")
        if (value := getattr(preprocess, name)) is not None
    }
    return preprocess.model_copy(update=sides).apply(pixels)


def png_url(pixels: NDArray[np.uint8]) -> str:
    """Return H×W×3 pixels as a PNG within a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
