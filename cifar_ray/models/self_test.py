"""Drawn images that a bundle carries, so that whoever runs it can tell that it runs right.

Loads no torch: a backend whose graph is cached checks itself with this.
"""

import base64
import io
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cifar_ray.images.decode import DecodeOptions, decode
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models.bundle_spec import SelfTestCase

REFERENCE_TOLERANCE = 1e-3
"""For probabilities of the float32 network."""
BACKEND_TOLERANCE = 0.03
"""For probabilities of a backend in whatever precision."""
_SIZES = ((32, 32), (48, 64), (80, 60), (160, 120))
_NUM_DRAWN, _NUM_KEPT = 8, 4

Probabilities = NDArray[np.float32]


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> Probabilities:
    """Return N×C probabilities in float32, computed in float64."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: Probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def draw_images() -> list[bytes]:
    """Return PNG files of coloured shapes, the same each time."""
    generator = random.Random(20)
    return [_draw(generator, _SIZES[index % len(_SIZES)]) for index in range(_NUM_DRAWN)]


def make_cases(images: list[bytes], probabilities: Probabilities) -> tuple[SelfTestCase, ...]:
    """Keep the images that the network is surest of: near-ties would tell less."""
    ranked = np.sort(probabilities, axis=1)
    margins = ranked[:, -1] - ranked[:, -2]
    kept = sorted(np.argsort(-margins, kind="stable")[:_NUM_KEPT].tolist())
    return tuple(
        SelfTestCase(
            image=base64.b64encode(images[index]).decode(),
            probabilities=remembered(probabilities[index]),
        )
        for index in kept
    )


def remembered(probabilities: Probabilities) -> tuple[float, ...]:
    """Return an image's probabilities (C) as `bundle.json` holds them."""
    return tuple(float(f"{value:.7g}") for value in probabilities)


def inputs(images: list[bytes], preprocess: Preprocess) -> NDArray[np.uint8]:
    """Decode and preprocess: N×S×S×3 uint8."""
    return np.stack([preprocess.apply(decode(data, DecodeOptions()).pixels) for data in images])


def case_images(cases: tuple[SelfTestCase, ...]) -> list[bytes]:
    """Return the files that the cases carry."""
    return [base64.b64decode(case.image) for case in cases]


def largest_difference(
    expected: Sequence[tuple[float, ...]], probabilities: Probabilities
) -> float:
    """Return the largest absolute difference from what the bundle remembers."""
    return float(np.abs(np.asarray(expected, dtype=np.float32) - probabilities).max())


def _draw(generator: random.Random, size: tuple[int, int]) -> bytes:
    image = Image.new("RGB", size, _colour(generator))
    canvas = ImageDraw.Draw(image)
    for _ in range(4):
        xs = sorted(generator.randrange(size[0] + 1) for _ in range(2))
        ys = sorted(generator.randrange(size[1] + 1) for _ in range(2))
        shape = generator.choice((canvas.rectangle, canvas.ellipse))
        shape((xs[0], ys[0], xs[1], ys[1]), fill=_colour(generator))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _colour(generator: random.Random) -> tuple[int, int, int]:
    return (generator.randrange(256), generator.randrange(256), generator.randrange(256))
