"""The DataLoader loop as somebody writes it who knows PyTorch's performance guide by heart.

After "Performance Tuning Guide" (https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html)
and "Channels Last Memory Format in PyTorch": inference mode, channels_last, bfloat16 where the CPU
multiplies it, uint8 from workers to model, normalisation a batch, Pillow's draft for large photos,
batches read by one call, and as many model threads as the workers leave cores.
"""

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.interface import Row, arguments, finish
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models.backends.machine import FAST_BFLOAT16, detect_instruction_set
from cifar_ray.models.bundle import Bundle

Batch = tuple[torch.Tensor, list[str]]


class Batches(Dataset[Batch]):
    """Batch by batch, so that a worker is asked once for many images."""

    def __init__(self, folder: str, preprocess: Preprocess, batch_size: int) -> None:
        paths = sorted(entry.path for entry in os.scandir(folder) if entry.is_file())
        self.batches = [paths[at : at + batch_size] for at in range(0, len(paths), batch_size)]
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        paths = self.batches[index]
        return torch.from_numpy(np.stack([self._read(path) for path in paths])), paths

    def _read(self, path: str) -> np.ndarray:
        side = self.preprocess.scale_to
        with Image.open(path) as image:
            image.draft("RGB", (side, side))
            return self.preprocess.apply(np.asarray(image.convert("RGB")))


@torch.inference_mode()
def label(folder: str, bundle: Bundle) -> Iterator[list[Row]]:
    preprocess = bundle.spec.preprocess
    small = preprocess.input_size < 128
    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()
    torch.set_num_threads(cores or 1)
    network = bundle.network().to(memory_format=torch.channels_last)
    fast = detect_instruction_set() in FAST_BFLOAT16
    precision = torch.autocast("cpu", torch.bfloat16) if fast else contextlib.nullcontext()
    mean, std = (
        torch.tensor(value).view(1, 3, 1, 1) * 255 for value in (preprocess.mean, preprocess.std)
    )
    batches = Batches(folder, preprocess, 256 if small else 32)
    loader = DataLoader(batches, batch_size=None, num_workers=cores or 1, prefetch_factor=2)
    with precision:
        for images, paths in loader:
            # Seen as N×3×H×W, what came as N×H×W×3 is channels_last already.
            inputs = images.permute(0, 3, 1, 2).float().sub_(mean).div_(std)
            best = network(inputs).float().softmax(dim=1).max(dim=1)
            yield list(zip(paths, best.indices.tolist(), best.values.tolist(), strict=True))


if __name__ == "__main__":
    finish(label(*arguments()))
