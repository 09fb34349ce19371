"""Plain convolutional networks for 32×32 images, after the reports that the recipes reproduce."""

from itertools import pairwise

from torch import nn


def cnn_122k(num_classes: int) -> nn.Module:
    """Three unpadded convolutions, two poolings, one hidden layer: 122,570 parameters for 10."""
    return nn.Sequential(
        *_conv(3, 32, padding=0),
        nn.MaxPool2d(2),
        *_conv(32, 64, padding=0),
        nn.MaxPool2d(2),
        *_conv(64, 64, padding=0),
        nn.Flatten(),
        *_dense(64 * 4 * 4, 64),
        nn.Linear(64, num_classes),
    )


def cnn_2_9m(num_classes: int) -> nn.Module:
    """Three pairs of convolutions with dropout between: 2,915,114 parameters for 10.

    The report does not name its dropout rates; 0.2 is the usual one of such Keras examples.
    """
    layers: list[nn.Module] = []
    for before, width in pairwise((3, 32, 64, 128)):
        layers += [*_conv(before, width), nn.Dropout(0.2), *_conv(width, width), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Dropout(0.2)]
    for before, width in pairwise((128 * 4 * 4, 1024, 512)):
        layers += [*_dense(before, width), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.Linear(512, num_classes))


def cnn_bn(num_classes: int) -> nn.Module:
    """Pairs of convolutions with batch norm of 32, 64, 128 filters, then 1024, 512, dropout 0.5.

    The report gives widths and layers; pairs are what its accuracy above 90 % takes.
    """
    layers: list[nn.Module] = []
    for before, width in pairwise((3, 32, 64, 128)):
        layers += [*_conv_norm(before, width), *_conv_norm(width, width), nn.MaxPool2d(2)]
    layers.append(nn.Flatten())
    for before, width in pairwise((128 * 4 * 4, 1024, 512)):
        layers += _dense(before, width)
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(512, num_classes))


def cnn_3conv(num_classes: int) -> nn.Module:
    """Three convolutions of 32, 64, 128 filters, each pooled, and one hidden layer of 256."""
    layers: list[nn.Module] = []
    for before, width in pairwise((3, 32, 64, 128)):
        layers += [*_conv(before, width), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers, nn.Flatten(), *_dense(128 * 4 * 4, 256), nn.Linear(256, num_classes)
    )


def _conv(in_channels: int, out_channels: int, padding: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 3, padding=padding), nn.ReLU(inplace=True)]


def _conv_norm(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def _dense(in_features: int, out_features: int) -> list[nn.Module]:
    return [nn.Linear(in_features, out_features), nn.ReLU(inplace=True)]
