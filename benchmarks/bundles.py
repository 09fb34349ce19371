"""The models that label: the one in the box, a bundle's folder, or a network with random weights.

Random weights serve for speed alone; nothing is said of their labels.
"""

from pathlib import Path

import torch

from cifar_ray.images.labels import CIFAR10
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models import registry
from cifar_ray.models.bundle import Bundle, save_bundle
from cifar_ray.models.bundle_spec import BundleSpec, TrainedOn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def bundle_of(model: str, folder: Path) -> Bundle:
    """Return `box`, a bundle's folder, or a network of the registry, saved below `folder`."""
    if model == "box":
        return Bundle.default()
    if Path(model).is_dir():
        return Bundle.load(model)
    network = registry.get(model)
    sized = {"squash": 32} if network.input_size == 32 else {"resize": 256, "crop": 224}
    spec = BundleSpec(
        network=model,
        labels=CIFAR10,
        preprocess=Preprocess(mean=MEAN, std=STD, **sized),
        trained_on=TrainedOn(dataset="nothing: random weights"),
    )
    torch.manual_seed(0)
    return save_bundle(folder / model, registry.build(model, len(CIFAR10)).eval(), spec)
