"""A DataLoader loop as users write it: float32, Pillow, two worker processes, one CSV at the end.

After PyTorch's "Writing Custom Datasets, DataLoaders and Transforms" tutorial and torchvision's
classification reference. `python -m benchmarks.peers.dataloader_float32 FOLDER BUNDLE` prints, as
JSON, the images and seconds of its steady state, which begins when the first batch is done.
"""

import csv
import json
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models.bundle import Bundle

BATCH_SIZE = 32


class ImageFolder(Dataset[tuple[torch.Tensor, str]]):
    def __init__(self, folder: str, preprocess: Preprocess) -> None:
        self.paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        steps: list[object] = [transforms.ToTensor()]
        steps.append(transforms.Normalize(preprocess.mean, preprocess.std))
        if preprocess.resize is not None:
            steps = [
                transforms.Resize(preprocess.resize),
                transforms.CenterCrop(preprocess.input_size),
                *steps,
            ]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        image = Image.open(self.paths[index]).convert("RGB")
        return self.transform(image), str(self.paths[index])


def main() -> None:
    bundle = Bundle.load(sys.argv[2])
    network = bundle.network()
    images_of = ImageFolder(sys.argv[1], bundle.spec.preprocess)
    rows: list[tuple[str, int, float]] = []
    started, first = 0.0, 0
    with torch.no_grad():
        for images, paths in DataLoader(images_of, batch_size=BATCH_SIZE, num_workers=2):
            best = network(images).softmax(dim=1).max(dim=1)
            rows += zip(paths, best.indices.tolist(), best.values.tolist(), strict=True)
            if not started:
                started, first = time.perf_counter(), len(rows)
    seconds = time.perf_counter() - started
    with open("labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    print(json.dumps({"images": len(rows) - first, "seconds": seconds}))


if __name__ == "__main__":
    main()
