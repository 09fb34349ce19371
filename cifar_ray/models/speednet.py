"""`speednet-*`: fast networks for 32×32 images, in the class of the CIFAR-10 speed records.

After K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv:2404.00498):
a first layer that whitens 2×2 patches, three groups of convolutions with batch norm without scale,
GELU, and a down-scaled linear head. `speednet-94`, `-95` and `-96` have widths and depths of that
paper's; those of `speednet-2m` are our own, chosen so that the weights take less than 5 MB in
bfloat16. Any input from 16×16 up works, so that early epochs can use smaller images.
"""

import itertools

import torch
from torch import Tensor, nn

WHITENING_PATCHES = 2_000_000
HEAD_SCALE = 1 / 9


class ShortGroup(nn.Module):
    """Convolution and 2×2 max-pool, then one more convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, out_channels)
        self.norm1 = _norm(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.norm2 = _norm(out_channels)
        self.pool = nn.MaxPool2d(2)
        self.activation = nn.GELU()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map N×C×H×W to N×C'×⌊H/2⌋×⌊W/2⌋."""
        hidden = self.activation(self.norm1(self.pool(self.conv1(inputs))))
        output: Tensor = self.activation(self.norm2(self.conv2(hidden)))
        return output


class ConvGroup(nn.Module):
    """Convolution and 2×2 max-pool, then two convolutions with a shortcut around them."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, out_channels)
        self.norm1 = _norm(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.norm2 = _norm(out_channels)
        self.conv3 = _conv3x3(out_channels, out_channels)
        self.norm3 = _norm(out_channels)
        self.pool = nn.MaxPool2d(2)
        self.activation = nn.GELU()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map N×C×H×W to N×C'×⌊H/2⌋×⌊W/2⌋."""
        shortcut: Tensor = self.activation(self.norm1(self.pool(self.conv1(inputs))))
        hidden = self.activation(self.norm2(self.conv2(shortcut)))
        output: Tensor = self.activation(self.norm3(self.conv3(hidden)) + shortcut)
        return output


class SpeedNet(nn.Module):
    """Whitening layer, three groups, global max-pool, linear head; N×3×H×W to N×C logits."""

    def __init__(
        self, num_classes: int, widths: tuple[int, int, int], group: type[ConvGroup | ShortGroup]
    ) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, kernel_size=2, bias=True)
        self.whiten.weight.requires_grad_(False)
        self.activation = nn.GELU()
        channels = (24, *widths)
        self.groups = nn.Sequential(*(group(a, b) for a, b in itertools.pairwise(channels)))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits."""
        hidden = self.groups(self.activation(self.whiten(inputs)))
        # The scale stands before the head, so that the head's input is the feature vector
        # that other parts of the project read.
        logits: Tensor = self.head(self.pool(hidden).flatten(1) * HEAD_SCALE)
        return logits

    @torch.no_grad()
    def initialise_from(self, images: Tensor) -> None:
        """Set the frozen first layer from normalised training images (N×3×H×W float32).

        Its 24 filters are the eigenvectors of the 2×2 patches' covariance, scaled to unit
        variance, and their negatives.
        """
        patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5)
        flat = patches.reshape(-1, 12)
        flat = flat[:: max(1, len(flat) // WHITENING_PATCHES)].double()
        flat = flat - flat.mean(dim=0)
        eigenvalues, eigenvectors = torch.linalg.eigh(flat.T @ flat / len(flat))
        filters = (eigenvectors / torch.sqrt(eigenvalues + 5e-4)).T.flip(0).reshape(12, 3, 2, 2)
        self.whiten.weight.copy_(torch.cat([filters, -filters]).to(self.whiten.weight))
        if self.whiten.bias is not None:
            self.whiten.bias.zero_()


def speednet(num_classes: int) -> SpeedNet:
    """Build `speednet-2m`."""
    return SpeedNet(num_classes, (64, 160, 256), ConvGroup)


def speednet_94(num_classes: int) -> SpeedNet:
    """Build `speednet-94`."""
    return SpeedNet(num_classes, (64, 256, 256), ShortGroup)


def speednet_95(num_classes: int) -> SpeedNet:
    """Build `speednet-95`."""
    return SpeedNet(num_classes, (128, 384, 384), ShortGroup)


def speednet_96(num_classes: int) -> SpeedNet:
    """Build `speednet-96`."""
    return SpeedNet(num_classes, (128, 384, 512), ConvGroup)


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
    # An identity start for the first channels lets gradients through from the first step.
    nn.init.dirac_(conv.weight[: min(in_channels, out_channels)])
    return conv


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=1e-5)
    norm.weight.requires_grad_(False)
    return norm
