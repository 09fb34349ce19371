"""Small bundles with weights from a seed; tests of labels need trained ones instead."""

from pathlib import Path

import torch

from cifar_ray.images.labels import CIFAR10
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models import registry
from cifar_ray.models.bundle import Bundle, save_bundle
from cifar_ray.models.bundle_spec import BundleSpec, TrainedOn

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def make_network(name: str = "cnn-122k", num_classes: int = 10, seed: int = 0) -> torch.nn.Module:
    """Build a network whose logits differ from image to image, as random ones hardly do."""
    torch.manual_seed(seed)
    network = registry.build(name, num_classes).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1 and parameter.requires_grad:
                parameter.mul_(2)
    return network


def make_spec(**changes: object) -> BundleSpec:
    """Describe `cnn-122k` on CIFAR-10's labels."""
    fields: dict[str, object] = {
        "network": "cnn-122k",
        "labels": CIFAR10,
        "preprocess": Preprocess(squash=32, mean=MEAN, std=STD),
        "trained_on": TrainedOn(dataset="drawn"),
    }
    return BundleSpec.model_validate({**fields, **changes})


def make_bundle(folder: Path, **changes: object) -> Bundle:
    """Save a bundle of random weights."""
    spec = make_spec(**changes)
    return save_bundle(folder, make_network(spec.network, len(spec.labels)), spec)
