"""A DataLoader training loop as tutorials have it: `cnn-122k` at batch 32, float32, Adam.

After PyTorch's "Training a Classifier" tutorial: a Dataset of decoded images in memory, ToTensor
and Normalize an image, two worker processes, a step a batch with the loss read for its display.
`python -m benchmarks.peers.dataloader_training IMAGES SECONDS` trains on random images for so long
and prints, as JSON, the images and seconds of its steady state.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cifar_ray.models import registry

BATCH_SIZE = 32


class ImagesInMemory(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, number: int) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (number, 32, 32, 3), dtype=np.uint8)
        self.labels = rng.integers(0, 10, number)
        normalise = transforms.Normalize((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
        self.transform = transforms.Compose([transforms.ToTensor(), normalise])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def main() -> None:
    number, limit_s = int(sys.argv[1]), float(sys.argv[2])
    network = registry.build("cnn-122k", 10)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loss_of = nn.CrossEntropyLoss()
    loader = DataLoader(ImagesInMemory(number), BATCH_SIZE, shuffle=True, num_workers=2)
    network.train()
    started, images, running = 0.0, 0, 0.0
    for inputs, labels in loader:
        optimizer.zero_grad()
        loss = loss_of(network(inputs), labels)
        loss.backward()
        optimizer.step()
        running += loss.item()
        if not started:
            started = time.perf_counter()
            continue
        images += len(inputs)
        if time.perf_counter() - started > limit_s:
            break
    print(json.dumps({"images": images, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
