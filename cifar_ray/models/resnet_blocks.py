"""`resnet-blocks`: four residual blocks of 64 to 512 filters for 32×32 images.

After the report of recipe `resnet-blocks`: batch norm follows the residual sum, max-pooling each of
the first three blocks, average pooling the last, then dense layers.
"""

from itertools import pairwise

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a 1×1 one; their sum is normalised. N×C×H×W to N×C'×H×W."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the activated, normalised sum."""
        hidden = self.activation(self.norm1(self.conv1(inputs)))
        output: Tensor = self.activation(self.norm2(self.conv2(hidden) + self.shortcut(inputs)))
        return output


def resnet_blocks(num_classes: int) -> nn.Module:
    """Build the network."""
    layers: list[nn.Module] = []
    for before, width in pairwise((3, 64, 128, 256, 512)):
        pool = nn.AdaptiveAvgPool2d(1) if width == 512 else nn.MaxPool2d(2)
        layers += [ResidualBlock(before, width), pool]
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(512, 256),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.Linear(256, num_classes),
    )
