"""Pictures of the report: images as the network saw them, with and without heat."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar_ray.models.classifier import Classifier
from cifar_ray.models.gradcam import grad_cam, overlay
from cifar_ray.training.evaluation.curves import surest_mistakes
from cifar_ray.training.evaluation.evaluation import Evaluation

SIDE_PX = 160
JPEG_QUALITY = 88
NUM_HEATED = 10
NUM_MISTAKES = 30
NUM_SAMPLED = 25
SAMPLE_SEED = 0

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Picture:
    """A held-out image and what a model made of it."""

    name: str
    label: str
    predicted: str
    confidence: float
    pixels: Pixels
    predicted_heat: Pixels | None = None
    """The image under the evidence for the predicted class."""
    label_heat: Pixels | None = None
    """The image under the evidence for its own class."""

    @property
    def is_right(self) -> bool:
        """Tell whether the prediction is the label."""
        return self.label == self.predicted


def mistakes(evaluation: Evaluation) -> list[Picture]:
    """Return the mistakes that the model was surest of; the first ten with Grad-CAM."""
    numbers = surest_mistakes(
        evaluation.probabilities, evaluation.predicted, evaluation.held_out.labels, NUM_MISTAKES
    )
    if not numbers:
        return []
    preprocess = evaluation.bundle.spec.preprocess
    pixels = evaluation.held_out.pixels(numbers, preprocess)
    heated = numbers[:NUM_HEATED]
    classifier = Classifier(evaluation.bundle.network(), preprocess.mean, preprocess.std)
    predicted, own = (
        grad_cam(classifier, pixels[: len(heated)], classes[heated].tolist())
        for classes in _bundle_ids(evaluation)
    )
    with_heat = [
        _picture(evaluation, number, image, _heated(image, hot), _heated(image, of_label))
        for number, image, hot, of_label in zip(heated, pixels, predicted, own, strict=False)
    ]
    others = zip(numbers[NUM_HEATED:], pixels[NUM_HEATED:], strict=True)
    return with_heat + [_picture(evaluation, number, image) for number, image in others]


def sampled(evaluation: Evaluation) -> list[Picture]:
    """Return 25 images drawn by seed from all, the same for every model."""
    total = len(evaluation.held_out)
    rng = np.random.default_rng(SAMPLE_SEED)
    numbers = rng.choice(total, min(NUM_SAMPLED, total), replace=False).tolist()
    pixels = evaluation.held_out.pixels(numbers, evaluation.bundle.spec.preprocess)
    return [_picture(evaluation, i, image) for i, image in zip(numbers, pixels, strict=True)]


def to_uri(pixels: Pixels) -> str:
    """Return a `data:` uri: a small image as PNG as it is, a larger one as JPEG of 160 pixels."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    if max(image.size) <= SIDE_PX // 2:
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((SIDE_PX, SIDE_PX))
        image.save(buffer, "JPEG", quality=JPEG_QUALITY)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _picture(
    evaluation: Evaluation,
    number: int,
    pixels: Pixels,
    predicted_heat: Pixels | None = None,
    label_heat: Pixels | None = None,
) -> Picture:
    held_out = evaluation.held_out
    return Picture(
        held_out.names[number],
        held_out.label_names[held_out.labels[number]],
        held_out.label_names[evaluation.predicted[number]],
        float(evaluation.probabilities[number].max()),
        pixels,
        predicted_heat,
        label_heat,
    )


def _bundle_ids(evaluation: Evaluation) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return predicted and true classes as the bundle's own network numbers them."""
    own = evaluation.bundle.spec.labels
    ids = np.array([own.index(name) for name in evaluation.held_out.label_names])
    return ids[evaluation.predicted], ids[evaluation.held_out.labels]


def _heated(pixels: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """Lay heat over an image, enlarged so that heat is smooth where pixels are few."""
    factor = max(1, SIDE_PX // len(pixels))
    large = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    size = (large.shape[1], large.shape[0])
    smooth = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
    return overlay(large, smooth)
