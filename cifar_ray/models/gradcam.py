"""Grad-CAM: where in an image a network saw the evidence for a class.

R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization" (ICCV 2017, arXiv:1610.02391): the last convolutional feature maps, each weighted with
the mean of its gradient, summed, negative values cut off. A heat map is as coarse as those maps,
which are 3×3 to 14×14 in the networks of the registry.
"""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cifar_ray.models.classifier import Classifier, normalise

Heat = NDArray[np.float32]
Pixels = NDArray[np.uint8]

COLOUR_MAP = mpl.colormaps["inferno"]
"""Its lightness rises evenly, so that it reads the same to the colour-blind and in grey."""
OPACITY = 0.6
_LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601."""
_POOLING = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Dropout,
)


def grad_cam(classifier: Classifier, images: Pixels, class_ids: Sequence[int]) -> Heat:
    """Return N×S×S float32 heat in [0, 1] for N×S×S×3 uint8 images and a class for each.

    The hottest place of an image is 1; an image without any evidence for its class is 0 all over.
    Puts the classifier into eval mode. All images are computed at once, with gradients: give few.
    """
    device = next(classifier.network.parameters()).device
    heat = class_activation(
        classifier.eval(),
        torch.from_numpy(np.ascontiguousarray(images)).to(device),
        torch.as_tensor(list(class_ids), device=device),
    )
    array: Heat = heat.cpu().numpy()
    return array


def class_activation(classifier: Classifier, images: Tensor, class_ids: Tensor) -> Tensor:
    """Do as `grad_cam`, on tensors, on any device."""
    inputs = normalise(images, classifier.mean, classifier.std)
    inputs = inputs.to(next(classifier.network.parameters()).dtype)
    # Frozen weights would leave no graph to differentiate.
    inputs.requires_grad_(True)
    with torch.enable_grad():
        logits, maps = last_maps(classifier.network, inputs)
        scores = logits.gather(1, class_ids.view(-1, 1)).sum()
        (gradient,) = torch.autograd.grad(scores, maps)
    maps, gradient = as_channels(maps.detach().float()), as_channels(gradient.float())
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    evidence = functional.relu((weights * maps).sum(dim=1, keepdim=True))
    size = images.shape[1:3]
    heat = functional.interpolate(evidence, size, mode="bilinear", align_corners=False)[:, 0]
    hottest = heat.amax(dim=(1, 2), keepdim=True)
    return heat / torch.where(hottest > 0, hottest, 1)


def last_maps(network: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and the last feature maps that still have places, before they are pooled.

    These are N×C×H×W from the last module that gives such, a block as a whole where its branches
    are joined; in a network that attends to tokens, the N×(1+P)×C input of its last attention,
    since what a class token reads last no longer has places.
    """
    maps: list[Tensor] = []
    pooled: set[int] = set()

    def record(module: nn.Module, args: tuple[Tensor, ...], output: object) -> None:
        if isinstance(module, nn.MultiheadAttention):
            maps.append(args[0])
        elif isinstance(output, Tensor) and output.ndim == 4:
            if isinstance(module, _POOLING):
                pooled.add(id(output))
            # A container gives back what its last part gave, which may be a pooling.
            elif id(output) not in pooled and output.shape[2] * output.shape[3] > 1:
                maps.append(output)

    hooks = [module.register_forward_hook(record) for module in network.modules()]
    try:
        logits: Tensor = network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not maps:
        raise ValueError("the network makes no feature maps of more than one place")
    return logits.float(), maps[-1]


def as_channels(maps: Tensor) -> Tensor:
    """Turn tokens (N×(1+P)×C, the first one for the class) into N×C×√P×√P; leave maps as is."""
    if maps.ndim == 4:
        return maps
    places = maps[:, 1:].transpose(1, 2)
    side = round(places.shape[2] ** 0.5)
    return places.reshape(*places.shape[:2], side, side)


def overlay(pixels: Pixels, heat: Heat) -> Pixels:
    """Lay heat (H×W in [0, 1]) over an image (H×W×3 uint8), which turns grey below it."""
    grey = (pixels @ _LUMA)[..., np.newaxis]
    colours = COLOUR_MAP(heat)[..., :3] * 255
    opacity = OPACITY * heat[..., np.newaxis]
    laid: Pixels = ((1 - opacity) * grey + opacity * colours).round().astype(np.uint8)
    return laid
