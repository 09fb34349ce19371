import numpy as np
import pytest
import torch
from torch import nn

from cifar_ray.models import registry
from cifar_ray.models.classifier import Classifier
from cifar_ray.models.gradcam import as_channels, class_activation, grad_cam, last_maps, overlay

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
SIDE = 32


class ByHand(nn.Module):
    """Two feature maps, red and green, whose means are the logits through a head by hand."""

    def __init__(self, head: list[list[float]]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).view(2, 3, 1, 1)
        self.head = nn.Linear(2, len(head), bias=False)
        self.head.weight.data = torch.tensor(head)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.conv(inputs).mean(dim=(2, 3)))
        return logits


def corners() -> np.ndarray:
    """An image that is red above left, and green below right."""
    pixels = np.zeros((1, SIDE, SIDE, 3), dtype=np.uint8)
    pixels[:, : SIDE // 2, : SIDE // 2, 0] = 255
    pixels[:, SIDE // 2 :, SIDE // 2 :, 1] = 255
    return pixels


def test_heat_lies_where_the_evidence_for_the_class_is() -> None:
    classifier = Classifier(ByHand([[1.0, 0.0], [0.0, 1.0]]), MEAN, STD)
    images = np.concatenate([corners(), corners()])
    red, green = grad_cam(classifier, images, [0, 1])
    np.testing.assert_allclose(red, corners()[0, ..., 0] / 255, atol=1e-6)
    np.testing.assert_allclose(green, corners()[0, ..., 1] / 255, atol=1e-6)


def test_maps_are_weighted_with_their_gradients_and_evidence_against_is_cut_off() -> None:
    classifier = Classifier(ByHand([[2.0, 1.0], [1.0, -1.0]]), MEAN, STD)
    both, against = grad_cam(classifier, np.concatenate([corners(), corners()]), [0, 1])
    assert both[0, 0] == pytest.approx(1)
    assert both[-1, -1] == pytest.approx(0.5)
    assert against[0, 0] == pytest.approx(1)
    assert against[-1, -1] == 0


def test_an_image_without_evidence_is_cold() -> None:
    classifier = Classifier(ByHand([[-1.0, -1.0], [1.0, 1.0]]), MEAN, STD)
    heat = grad_cam(classifier, corners(), [0])
    assert heat.max() == 0


def test_an_image_does_not_change_the_heat_of_its_neighbours() -> None:
    torch.manual_seed(0)
    classifier = Classifier(registry.build("cnn-bn", 10), MEAN, STD)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    together = grad_cam(classifier, images, [1, 2, 3])
    alone = grad_cam(classifier, images[1:2], [2])
    np.testing.assert_allclose(together[1], alone[0], atol=1e-4)
    assert together.dtype == np.float32
    assert together.shape == (3, SIDE, SIDE)
    assert not any(module._forward_hooks for module in classifier.modules())


def test_frozen_weights_have_heat_too() -> None:
    network = ByHand([[1.0, 0.0], [0.0, 1.0]]).requires_grad_(False)
    assert grad_cam(Classifier(network, MEAN, STD), corners(), [0]).max() == pytest.approx(1)


def on_meta(name: str) -> nn.Module:
    """Build a network on torch's meta device, which computes shapes alone."""
    if "regnet" in name:  # its builder computes widths with tensors
        return registry.build(name, 7).eval().to("meta")
    with torch.device("meta"):
        return registry.build(name, 7).eval()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("torchvision:") else ())
        for name in registry.names()
    ],
)
def test_every_network_of_the_registry_has_maps_with_places(name: str) -> None:
    size = registry.get(name).input_size
    classifier = Classifier(on_meta(name), MEAN, STD)
    with torch.device("meta"):
        images = torch.zeros(2, size, size, 3, dtype=torch.uint8)
        inputs = torch.zeros(2, 3, size, size, requires_grad=True)
        maps = as_channels(last_maps(classifier.network, inputs)[1])
        heat = class_activation(classifier, images, torch.zeros(2, dtype=torch.int64))
    assert maps.shape[2] == maps.shape[3] >= 3
    assert maps.shape[1] >= 64 or "squeezenet" in name  # whose last convolution makes the logits
    assert heat.shape == (2, size, size)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("vgg16", (512, 14, 14)),  # conv5_3, as in the paper: before pooling
        ("resnet50", (2048, 7, 7)),  # after the last sum
        ("cnn-2.9m", (128, 8, 8)),
        ("torchvision:googlenet", (1024, 7, 7)),  # all four branches
        ("torchvision:densenet121", (1024, 7, 7)),  # all layers of the last block
        ("torchvision:regnet_x_400mf", (400, 7, 7)),
        ("torchvision:squeezenet1_1", (7, 13, 13)),  # its last convolution makes the logits
        ("torchvision:swin_t", (768, 7, 7)),  # channels first
        ("torchvision:vit_b_32", (768, 7, 7)),  # tokens as places
    ],
)
def test_the_maps_are_the_last_whole_ones_before_pooling(
    name: str, shape: tuple[int, int, int]
) -> None:
    size = registry.get(name).input_size
    inputs = torch.zeros(1, 3, size, size, requires_grad=True, device="meta")
    maps = last_maps(on_meta(name), inputs)[1]
    assert as_channels(maps).shape[1:] == shape


def test_the_places_of_tokens_have_a_gradient() -> None:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    network = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4)
    nn.init.normal_(network.heads.head.weight)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    assert grad_cam(Classifier(network, MEAN, STD), images, [0, 1, 2, 3]).max() == pytest.approx(1)


def test_an_overlay_is_the_grey_image_where_it_is_cold_and_bright_where_it_is_hot() -> None:
    pixels = np.full((2, 2, 3), 100, dtype=np.uint8)
    heat = np.array([[0, 0], [0, 1]], dtype=np.float32)
    laid = overlay(pixels, heat)
    assert laid.dtype == np.uint8
    assert (laid[0, 0] == 100).all()
    assert laid[1, 1, 0] > 150
    assert laid[1, 1, 0] > laid[1, 1, 2]
