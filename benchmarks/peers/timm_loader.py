"""timm's loader, transforms and model, as its `inference.py` puts them together for a CPU.

After https://github.com/huggingface/pytorch-image-models/blob/main/inference.py: `create_dataset`,
`create_loader` without its prefetcher (which is for GPUs), channels_last, inference mode. A network
that timm does not have runs behind timm's loader as it is.
"""

import os
from collections.abc import Iterator
from itertools import islice

import timm
import torch
from timm.data import create_dataset, create_loader

from benchmarks.peers.interface import Row, arguments, finish
from cifar_ray.models.bundle import Bundle

BATCH_SIZE = 64


def network_of(bundle: Bundle) -> torch.nn.Module:
    network, name = bundle.network(), bundle.spec.network
    if not timm.is_model(name):
        return network
    theirs = timm.create_model(name, pretrained=False, num_classes=len(bundle.spec.labels))
    theirs.load_state_dict(network.state_dict())
    evaluated: torch.nn.Module = theirs.eval()
    return evaluated


@torch.inference_mode()
def label(folder: str, bundle: Bundle) -> Iterator[list[Row]]:
    preprocess = bundle.spec.preprocess
    side = preprocess.input_size
    network = network_of(bundle).to(memory_format=torch.channels_last)
    dataset = create_dataset("", root=folder)
    loader = create_loader(
        dataset,
        input_size=(3, side, side),
        batch_size=BATCH_SIZE,
        use_prefetcher=False,
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        crop_pct=side / preprocess.scale_to,
        crop_mode="squash" if preprocess.squash else "center",
        num_workers=os.cpu_count() or 1,
    )
    paths = iter(dataset.filenames(absolute=True))
    for images, _ in loader:
        inputs = images.contiguous(memory_format=torch.channels_last)
        best = network(inputs).softmax(dim=1).max(dim=1)
        # The loader keeps the dataset's order.
        number = len(best.indices)
        columns = (islice(paths, number), best.indices.tolist(), best.values.tolist())
        yield list(zip(*columns, strict=True))


if __name__ == "__main__":
    finish(label(*arguments()))
