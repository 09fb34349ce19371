"""Augmentation in batches on the device: uint8 in, uint8 out, cheap beside a step.

Every function takes images N×H×W×3 uint8 and a generator, and returns the same shape.
"""

import torch
from torch import Tensor
from torch.nn import functional

from cifar_ray.config.augmentation import AugmentConfig
from cifar_ray.training.augmentation.geometry import turn_zoom_shift
from cifar_ray.training.augmentation.randaugment import randaugment


def augment(
    images: Tensor, indices: Tensor, epoch: int, config: AugmentConfig, generator: torch.Generator
) -> Tensor:
    """Apply what `config` asks for; `indices` are the images' places in the dataset."""
    if config.flip == "alternate":
        images = flip_where(images, (_parity(indices) + epoch) % 2 == 0)
    elif config.flip == "random":
        images = flip_where(images, torch.rand(len(images), generator=generator) < 0.5)
    if config.rotation_degrees or config.zoom or config.shift:
        images = turn_zoom_shift(images, config, generator)
    if config.translate_px:
        images = translate(images, config.translate_px, generator, config.padding)
    if config.randaugment_ops:
        images = randaugment(
            images, config.randaugment_ops, config.randaugment_magnitude, generator
        )
    if config.cutout_px:
        images = cutout(images, config.cutout_px, generator)
    return images


def flip_where(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the chosen images (N bool) left to right."""
    return torch.where(chosen.view(-1, 1, 1, 1).to(images.device), images.flip(2), images)


def translate(
    images: Tensor, reach_px: int, generator: torch.Generator, padding: str = "reflect"
) -> Tensor:
    """Shift each image by up to `reach_px` pixels each way; `reflect` edges or bring in `zeros`."""
    number, height, width, _ = images.shape
    planes = images.permute(0, 3, 1, 2).float()
    mode = "reflect" if padding == "reflect" else "constant"
    padded = functional.pad(planes, (reach_px,) * 4, mode=mode).to(images.dtype)
    shifts = torch.randint(0, 2 * reach_px + 1, (2, number, 1), generator=generator)
    shifts = shifts.to(images.device)
    rows = (shifts[0] + torch.arange(height, device=images.device)).view(number, height, 1)
    columns = (shifts[1] + torch.arange(width, device=images.device)).view(number, 1, width)
    which = torch.arange(number, device=images.device).view(number, 1, 1)
    return padded.permute(0, 2, 3, 1)[which, rows, columns]


def cutout(images: Tensor, side_px: int, generator: torch.Generator) -> Tensor:
    """Set a square at a random place, cut off at the edge, to the batch's mean colour.

    T. DeVries, G. Taylor, "Improved Regularization of CNNs with Cutout" (arXiv:1708.04552).
    """
    number, height, width, _ = images.shape
    centre_y = torch.randint(0, height, (number, 1, 1), generator=generator).to(images.device)
    centre_x = torch.randint(0, width, (number, 1, 1), generator=generator).to(images.device)
    y = torch.arange(height, device=images.device).view(1, height, 1)
    x = torch.arange(width, device=images.device).view(1, 1, width)
    half = side_px / 2
    inside = ((y - centre_y + 0.5).abs() < half) & ((x - centre_x + 0.5).abs() < half)
    mean = images.float().mean(dim=(0, 1, 2)).to(images.dtype)
    return torch.where(inside.unsqueeze(-1), mean, images)


def scale_to(images: Tensor, side_px: int) -> Tensor:
    """Scale normalised images (N×3×H×W float) to `side_px` × `side_px`, with antialiasing."""
    return functional.interpolate(
        images, size=(side_px, side_px), mode="bilinear", antialias=True, align_corners=False
    )


def _parity(indices: Tensor) -> Tensor:
    """Half of the images 0, half 1, without a visible pattern over the dataset's order."""
    return (indices * 2_654_435_761 >> 16) % 2
