"""Every network by name. Listing loads neither torch nor torchvision; building does."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from cifar_ray.errors import InputError, did_you_mean
from cifar_ray.models.torchvision_table import PREFIX, TORCHVISION

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network that can be built."""

    name: str
    builder: str
    """`module:function` under `cifar_ray.models`, imported when the network is built."""
    parameters: int
    """With `num_classes` outputs."""
    input_size: int = 32
    """Side of the square images that it is meant for, in pixels."""
    arguments: tuple[str | int, ...] = ()
    num_classes: int = 10
    pretrained: str = ""
    """The classifier of torchvision whose published weights fit all but the head."""
    head: str = ""
    """What is new when the rest is pretrained; empty: the last layer with parameters."""

    def build(self, num_classes: int) -> "nn.Module":
        """Build it with random weights: N×3×H×W normalised float32 in, N×C logits out."""
        module, function = self.builder.split(":")
        builder = getattr(import_module(f"cifar_ray.models.{module}"), function)
        network: nn.Module = builder(*self.arguments, num_classes=num_classes)
        return network


_CIFAR_RESNET = "torchvision_networks:build_cifar_resnet"
_TORCHVISION = "torchvision_networks:build_torchvision"
_OURS = (
    NetworkSpec("cnn-122k", "cnn:cnn_122k", 122_570),
    NetworkSpec("cnn-2.9m", "cnn:cnn_2_9m", 2_915_114),
    NetworkSpec("cnn-bn", "cnn:cnn_bn", 2_915_562),
    NetworkSpec("cnn-3conv", "cnn:cnn_3conv", 620_362),
    NetworkSpec("speednet-2m", "speednet:speednet", 2_194_552),
    NetworkSpec("speednet-94", "speednet:speednet_94", 1_972_792),
    NetworkSpec("speednet-95", "speednet:speednet_95", 4_606_520),
    NetworkSpec("speednet-96", "speednet:speednet_96", 9_918_776),
    NetworkSpec("resnet-blocks", "resnet_blocks:resnet_blocks", 4_993_418),
    NetworkSpec("resnet18-cifar", _CIFAR_RESNET, 11_173_962, arguments=("resnet18",)),
    NetworkSpec("resnet50-cifar", _CIFAR_RESNET, 23_520_842, arguments=("resnet50",)),
    NetworkSpec(
        "resnet18", _TORCHVISION, 11_181_642, 224, ("resnet18", 224), pretrained="resnet18"
    ),
    NetworkSpec(
        "resnet50", _TORCHVISION, 23_528_522, 224, ("resnet50", 224), pretrained="resnet50"
    ),
    NetworkSpec(
        "resnet50-mlp",
        "torchvision_networks:build_resnet50_mlp",
        26_136_138,
        224,
        pretrained="resnet50",
        head="fc",
    ),
    NetworkSpec("vgg16", _TORCHVISION, 134_301_514, 224, ("vgg16", 224), pretrained="vgg16"),
)
_TORCHVISIONS = (
    NetworkSpec(f"{PREFIX}{name}", _TORCHVISION, parameters, size, (name, size), 1000, name)
    for name, (parameters, size) in TORCHVISION.items()
)
_NETWORKS = {spec.name: spec for spec in (*_OURS, *_TORCHVISIONS)}


def names() -> list[str]:
    """Return all names, our own first."""
    return list(_NETWORKS)


def get(name: str) -> NetworkSpec:
    """Look a network up; `InputError` names the nearest ones."""
    if name not in _NETWORKS:
        raise InputError(f"There is no network {name!r}. {did_you_mean(name, _NETWORKS)}")
    return _NETWORKS[name]


def build(name: str, num_classes: int) -> "nn.Module":
    """Build a network with random weights."""
    return get(name).build(num_classes)
