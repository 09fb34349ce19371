"""RandAugment in batches: each operation is applied at once to the images that drew it.

E. Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space"
(arXiv:1909.13719); operations and their ranges are torchvision's, at magnitudes from 0 to 30.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from cifar_ray.training.augmentation.geometry import resample

MAX_MAGNITUDE = 30
_GREY = (0.2989, 0.587, 0.114)


def randaugment(
    images: Tensor, num_ops: int, magnitude: float, generator: torch.Generator
) -> Tensor:
    """Apply `num_ops` operations, drawn for each image, one after the other (N×H×W×3 uint8)."""
    strength = magnitude / MAX_MAGNITUDE
    for _ in range(num_ops):
        drawn = torch.randint(len(OPERATIONS), (len(images),), generator=generator)
        signs = torch.randint(0, 2, (len(images),), generator=generator) * 2.0 - 1
        changed = images.clone()
        for number, operation in enumerate(OPERATIONS):
            rows = torch.nonzero(drawn == number).flatten()
            if len(rows):
                changed[rows] = operation(images[rows], strength * signs[rows].to(images.device))
        images = changed
    return images


def _moved(row: int, column: int, reach: float) -> "Operation":
    """Make a geometric operation that moves one coefficient of an image's matrix."""

    def operation(images: Tensor, strength: Tensor) -> Tensor:
        matrices = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
        matrices[:, row, column] += strength * reach
        return resample(images, matrices)

    return operation


def _rotate(images: Tensor, strength: Tensor) -> Tensor:
    angle = strength * math.radians(30)
    zeros = torch.zeros_like(angle)
    top = torch.stack([angle.cos(), -angle.sin(), zeros], dim=1)
    bottom = torch.stack([angle.sin(), angle.cos(), zeros], dim=1)
    return resample(images, torch.stack([top, bottom], dim=1))


def _blended(other_of: Callable[[Tensor], Tensor]) -> "Operation":
    """Make an operation that moves an image away from, or towards, what `other_of` makes of it."""

    def operation(images: Tensor, strength: Tensor) -> Tensor:
        pixels = images.float()
        other = other_of(pixels)
        changed = other + (1 + 0.9 * strength).view(-1, 1, 1, 1) * (pixels - other)
        return _to_bytes(changed)

    return operation


def _black(pixels: Tensor) -> Tensor:
    return torch.zeros_like(pixels)


def _grey(pixels: Tensor) -> Tensor:
    weights = torch.tensor(_GREY, device=pixels.device)
    return (pixels * weights).sum(dim=3, keepdim=True).expand_as(pixels)


def _mean_grey(pixels: Tensor) -> Tensor:
    return _grey(pixels).mean(dim=(1, 2, 3), keepdim=True).expand_as(pixels)


def _smooth(pixels: Tensor) -> Tensor:
    """Smooth the inside as Pillow does; the edge stays."""
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], device=pixels.device) / 13
    planes = pixels.permute(0, 3, 1, 2).clone()
    inside = functional.conv2d(planes, kernel.expand(3, 1, 3, 3).contiguous(), groups=3)
    planes[:, :, 1:-1, 1:-1] = inside
    return planes.permute(0, 2, 3, 1)


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    dropped_bits = (4 * strength.abs()).round().to(torch.uint8).view(-1, 1, 1, 1)
    return (images >> dropped_bits) << dropped_bits


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    threshold = (255 * (1 - strength.abs())).view(-1, 1, 1, 1)
    return torch.where(images >= threshold, 255 - images, images)


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    """Stretch each channel to the whole range; the strength does not matter."""
    pixels = images.float()
    low = pixels.amin(dim=(1, 2), keepdim=True)
    high = pixels.amax(dim=(1, 2), keepdim=True)
    stretched = (pixels - low) * (255 / (high - low).clamp_min(1))
    return torch.where(high > low, _to_bytes(stretched), images)


def _equalize(images: Tensor, strength: Tensor) -> Tensor:
    """Flatten each channel's histogram, as Pillow does; the strength does not matter."""
    number, height, width, channels = images.shape
    planes = images.permute(0, 3, 1, 2).reshape(number * channels, -1).long()
    counts = torch.zeros(len(planes), 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(1, planes, torch.ones_like(planes))
    cumulated = counts.cumsum(dim=1)
    step = (planes.shape[1] - counts.gather(1, planes.amax(dim=1, keepdim=True))) // 255
    before = cumulated - counts
    table = ((before + step // 2) // step.clamp_min(1)).clamp(0, 255)
    flat = torch.where(step > 0, table.gather(1, planes), planes)
    shaped = flat.view(number, channels, height, width).permute(0, 2, 3, 1)
    return shaped.to(images.dtype).contiguous()


def _to_bytes(pixels: Tensor) -> Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)


Operation = Callable[[Tensor, Tensor], Tensor]
"""Takes M×H×W×3 uint8 images and M signed strengths in [−1, 1], and returns changed images."""

OPERATIONS: tuple[Operation, ...] = (
    lambda images, strength: images,
    _moved(0, 1, 0.3),  # shear
    _moved(1, 0, 0.3),
    _moved(0, 2, 2 * 150 / 331),  # shift
    _moved(1, 2, 2 * 150 / 331),
    _rotate,
    _blended(_black),  # brightness
    _blended(_grey),  # saturation
    _blended(_mean_grey),  # contrast
    _blended(_smooth),  # sharpness
    _posterize,
    _solarize,
    _autocontrast,
    _equalize,
)
