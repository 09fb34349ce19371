"""Networks of torchvision's, under its own parameter names, so that its state_dicts load.

Importing this module imports torchvision, which takes seconds: the registry does so on demand.
"""

from itertools import pairwise
from typing import Any

from torch import nn
from torchvision import models

# Published weights of these expect to undo ImageNet's normalisation themselves, and their
# auxiliary heads serve training from scratch alone.
_INCEPTIONS = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "aux_logits": False, "init_weights": False},
}


def build_torchvision(name: str, input_size: int, num_classes: int) -> nn.Module:
    """Build a classifier of torchvision's with random weights."""
    options: dict[str, Any] = dict(_INCEPTIONS.get(name, {}))
    if name.startswith("vit_"):
        options["image_size"] = input_size  # the position embedding has its length from this
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    return network


def build_cifar_resnet(name: str, num_classes: int) -> nn.Module:
    """Build a ResNet whose stem keeps 32×32 images whole: 3×3 convolution, stride 1, no pooling.

    The stem is that of He et al., "Deep Residual Learning" (arXiv:1512.03385), section 4.2; the
    rest is torchvision's.
    """
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


def build_resnet50_mlp(num_classes: int) -> nn.Module:
    """Build ResNet-50 with dense layers of 1024 and 512 and dropout before the last.

    The report that recipe `resnet50-mlp` follows names its dropouts but not their rates; 0.2 is
    that of its other network here.
    """
    network: nn.Module = models.resnet50(weights=None)
    layers: list[nn.Module] = []
    for before, width in pairwise((2048, 1024, 512)):
        layers += [nn.Linear(before, width), nn.ReLU(inplace=True), nn.Dropout(0.2)]
    network.fc = nn.Sequential(*layers, nn.Linear(512, num_classes))
    return network
