"""Mixing pairs of images of a batch: mixup and cutmix.

H. Zhang et al., "mixup: Beyond Empirical Risk Minimization" (arXiv:1710.09412); S. Yun et al.,
"CutMix: Regularization Strategy to Train Strong Classifiers" (arXiv:1905.04899).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cifar_ray.config.augmentation import AugmentConfig


@dataclass(frozen=True, slots=True)
class Mix:
    """How a batch is mixed: with whom, how much stays, and in which rectangle."""

    partners: Tensor
    """For each image of the batch the other's place in it."""
    kept: float
    """Share of the image, and of its label in the loss, that is its own."""
    box: tuple[slice, slice] | None
    """Rows and columns that come from the partner; None blends whole images."""

    def apply(self, images: Tensor, others: Tensor) -> Tensor:
        """Mix images with their partners, both N×C×H×W float."""
        if self.box is None:
            return images.lerp(others, 1 - self.kept)
        mixed = images.clone()
        rows, columns = self.box
        mixed[:, :, rows, columns] = others[:, :, rows, columns]
        return mixed


def is_mixing(config: AugmentConfig) -> bool:
    """Tell whether the config asks for mixing."""
    return bool(config.mixup_alpha or config.cutmix_alpha)


def draw_mix(
    config: AugmentConfig, num_images: int, side_px: int, generator: torch.Generator
) -> Mix:
    """Draw how a batch of square images is mixed."""
    partners = torch.randperm(num_images, generator=generator)
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    cut = bool(config.cutmix_alpha) and (not config.mixup_alpha or rng.random() < 0.5)
    alpha = config.cutmix_alpha if cut else config.mixup_alpha
    kept = float(rng.beta(alpha, alpha))
    if not cut:
        return Mix(partners, kept, None)
    half = side_px * (1 - kept) ** 0.5 / 2
    rows, columns = (_around(float(rng.uniform(0, side_px)), half, side_px) for _ in range(2))
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return Mix(partners, 1 - area / side_px**2, (rows, columns))


def _around(centre: float, half: float, side_px: int) -> slice:
    return slice(max(0, round(centre - half)), min(side_px, round(centre + half)))
