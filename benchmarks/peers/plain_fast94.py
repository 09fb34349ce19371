"""A plain loop of `speednet-94`: SGD with momentum, as the public speed-record script trains it.

Rate, momentum, weight decay, the biases' rate, the triangular schedule and label smoothing are
those of airbench94 (K. Jordan, arXiv:2404.00498), as is the augmentation: flip at random and shift
by up to two pixels. Autocast to bfloat16 where the processor computes in it, channels_last.
`python -m benchmarks.peers.plain_fast94 IMAGES BATCH_SIZE EPOCHS SEED` prints, as JSON, the seconds
of training and the accuracy on the held-out images.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.fast94 import images_of
from cifar_ray.models.speednet import speednet_94
from cifar_ray.training.data.dataset import LabelledImages

RATE, MOMENTUM, WEIGHT_DECAY, BIAS_FACTOR = 11.5, 0.85, 0.0153, 64.0
SMOOTHING = 0.2
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    planes = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
    return planes.contiguous(memory_format=torch.channels_last)


def augmented(images: Tensor) -> Tensor:
    """Flip and shift each image of a batch by a draw of its own."""
    flipped = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
    padded = functional.pad(flipped, (2, 2, 2, 2), mode="reflect")
    shifted = torch.empty_like(images)
    places = torch.randint(0, 5, (len(images), 2))
    for dy in range(5):
        for dx in range(5):
            chosen = (places[:, 0] == dy) & (places[:, 1] == dx)
            shifted[chosen] = padded[chosen, :, dy : dy + 32, dx : dx + 32]
    return shifted.contiguous(memory_format=torch.channels_last)


def optimizer_of(network: nn.Module, batch_size: int) -> torch.optim.SGD:
    """Return SGD with the script's decoupled rates."""
    rate = RATE / (1024 * (1 + 1 / (1 - MOMENTUM)))
    decay = WEIGHT_DECAY * batch_size / (1024 * (1 + 1 / (1 - MOMENTUM))) / rate
    biases = [p for n, p in network.named_parameters() if "norm" in n and p.requires_grad]
    others = [p for n, p in network.named_parameters() if "norm" not in n and p.requires_grad]
    groups = [
        {"params": biases, "lr": rate * BIAS_FACTOR, "weight_decay": decay / BIAS_FACTOR},
        {"params": others, "lr": rate, "weight_decay": decay},
    ]
    return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)


def train(
    network: nn.Module,
    optimizer: torch.optim.SGD,
    data: LabelledImages,
    batch_size: int,
    epochs: int,
) -> None:
    steps = -(-len(data) // batch_size) * epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: float(np.interp(step / steps, (0, 0.23, 1), (0.2, 1, 0.07)))
    )
    # The script's rates are meant for a sum.
    loss_of = nn.CrossEntropyLoss(label_smoothing=SMOOTHING, reduction="sum")
    inputs = normalised(data.images)
    bfloat16 = bool(torch.cpu._is_avx512_bf16_supported())
    network.train()
    for _ in range(epochs):
        for indices in torch.randperm(len(data)).split(batch_size):
            batch = augmented(inputs[indices])
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = loss_of(network(batch).float(), data.labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.inference_mode()
def accuracy_of(network: nn.Module, data: LabelledImages) -> float:
    network.eval()
    right = 0
    for indices in torch.arange(len(data)).split(500):
        logits = network(normalised(data.images[indices]))
        right += int((logits.argmax(dim=1) == data.labels[indices]).sum())
    return right / len(data)


def main() -> None:
    number, batch_size, epochs, seed = map(int, sys.argv[1:])
    training, held_out = images_of(number)
    torch.manual_seed(seed)
    speednet = speednet_94(10)
    speednet.initialise_from(normalised(training.images[:5000]))
    network = speednet.to(memory_format=torch.channels_last)
    # The first optimizer of a process loads much of torch: not the loop's own time.
    optimizer = optimizer_of(network, batch_size)
    started = time.perf_counter()
    train(network, optimizer, training, batch_size, epochs)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "accuracy": accuracy_of(network, held_out)}))


if __name__ == "__main__":
    main()
