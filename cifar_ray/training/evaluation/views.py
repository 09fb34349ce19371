"""Test-time augmentation: the mean of logits over mirrored and shifted views.

As the CIFAR-10 speed records are measured: K. Jordan (arXiv:2404.00498).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def mean_logits(network: nn.Module, inputs: Tensor, views: str) -> Tensor:
    """Return logits (N×C) of N×3×S×S inputs: `none`, `flip`, or `flip-shift` of one pixel."""
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    if views == "none":
        logits: Tensor = network(inputs)
        return logits
    both: Tensor = 0.5 * network(inputs) + 0.5 * network(inputs.flip(3))
    if views == "flip":
        return both
    side = inputs.shape[-1]
    padded = functional.pad(inputs, (1, 1, 1, 1), mode="reflect")
    corners = [padded[:, :, at : at + side, at : at + side] for at in (0, 2)]
    shifted = [mean_logits(network, corner, "flip") for corner in corners]
    averaged: Tensor = 0.5 * both + 0.25 * (shifted[0] + shifted[1])
    return averaged
