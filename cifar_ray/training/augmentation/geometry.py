"""Affine changes of a batch of images, each its own, in one resampling."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from cifar_ray.config.augmentation import AugmentConfig


def turn_zoom_shift(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Rotate, zoom and shift each image (N×H×W×3 uint8) by its own draw, as the config allows."""
    angle, zoom_x, zoom_y, shift_x, shift_y = (
        torch.rand((5, len(images)), generator=generator) * 2 - 1
    )
    angle = angle * math.radians(config.rotation_degrees)
    zoom_x, zoom_y = 1 + config.zoom * zoom_x, 1 + config.zoom * zoom_y
    rows = (
        # Coordinates run from −1 to 1, so that a side is 2 of them.
        (zoom_x * angle.cos(), -zoom_x * angle.sin(), 2 * config.shift * shift_x),
        (zoom_y * angle.sin(), zoom_y * angle.cos(), 2 * config.shift * shift_y),
    )
    return resample(images, torch.stack([torch.stack(row, dim=1) for row in rows], dim=1))


def resample(images: Tensor, matrices: Tensor) -> Tensor:
    """Take each pixel from where an image's 2×3 matrix leads; outside, the edge is repeated."""
    planes = images.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(
        matrices.to(images.device), list(planes.shape), align_corners=False
    )
    moved = functional.grid_sample(
        planes, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return moved.round_().to(images.dtype).permute(0, 2, 3, 1).contiguous()
