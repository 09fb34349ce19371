"""A DataLoader loop as users write it: float32, Pillow, two worker processes, one CSV at the end.

After PyTorch's "Writing Custom Datasets, DataLoaders and Transforms" tutorial
(https://docs.pytorch.org/tutorials/beginner/data_loading_tutorial.html) and torchvision's
classification reference.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.peers.interface import Row, arguments, finish
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models.bundle import Bundle

BATCH_SIZE = 32


def transform_of(preprocess: Preprocess) -> transforms.Compose:
    """Return the bundle's preprocessing in torchvision's words."""
    steps: list[object] = [transforms.ToTensor()]
    steps.append(transforms.Normalize(preprocess.mean, preprocess.std))
    if preprocess.squash is not None:
        steps.insert(0, transforms.Resize((preprocess.squash, preprocess.squash)))
    else:
        steps.insert(0, transforms.CenterCrop(preprocess.input_size))
        steps.insert(0, transforms.Resize(preprocess.resize))
    return transforms.Compose(steps)


class ImageFolder(Dataset[tuple[torch.Tensor, str]]):
    def __init__(self, folder: str, preprocess: Preprocess) -> None:
        self.paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        self.transform = transform_of(preprocess)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        image = Image.open(self.paths[index]).convert("RGB")
        return self.transform(image), str(self.paths[index])


@torch.no_grad()
def label(folder: str, bundle: Bundle) -> Iterator[list[Row]]:
    network = bundle.network()
    images_of = ImageFolder(folder, bundle.spec.preprocess)
    for images, paths in DataLoader(images_of, batch_size=BATCH_SIZE, num_workers=2):
        best = network(images).softmax(dim=1).max(dim=1)
        yield list(zip(paths, best.indices.tolist(), best.values.tolist(), strict=True))


if __name__ == "__main__":
    finish(label(*arguments()))
