"""A first look at images that will be streamed: each is read and decoded once, by one of the ranks.

It tells what a split needs to leak no copy (a digest of the pixels), what normalisation needs, the
range of sizes, and which images are broken, before the first step. What was found is kept in the
run, so that a run that goes on does not look again. It takes 80 bytes an image.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from cifar_ray.config.training import TrainingConfig, TrainingSpec
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models.weights import write_tensors
from cifar_ray.training.data.dataset import Encoded, decode_all
from cifar_ray.training.data.decoded import MAX_SHOWN, decode_chunk, identity, raise_for
from cifar_ray.training.data.reading import Source
from cifar_ray.training.data.sources import Data, find, geometry
from cifar_ray.training.data.streaming import (
    Catalog,
    Chunk,
    StreamedImages,
    blocks_of,
    decode_in_order,
)
from cifar_ray.training.loop import Ranks
from cifar_ray.training.place import RunPlace

DIGEST, SIZE, SUMS = slice(0, 2), slice(2, 4), slice(4, 10)
"""Columns of what is found, N×10 int64."""
MEETING_IMAGES = 4096
"""So often ranks wait for each other."""
FOUND, IDENTITY = "found", "identity"


def load_stream(spec: TrainingSpec, side: int, place: RunPlace, ranks: Ranks) -> Data:
    """Find DATA, look at it or take what the run holds of that, and return it unread.

    `side` is that of the network's input. All ranks call it together. DATA's own test images are
    decoded, and kept. Raises `InputError` as `sources.load` does.
    """
    data = find(spec.data, leave_images=True)
    preprocess = geometry(side)
    place.fetch(place.run.survey)
    key = identity(data.train.images, preprocess)
    found = _kept(place.run.survey, key)
    if found is None:
        found = _look(data.train.images, preprocess, ranks, torch.device(spec.device))
        if ranks.rank == 0:
            _keep(place, found, key)
    images = _streamed(data.train, preprocess, found, spec.config)
    test = decode_all(data.test, preprocess) if data.test else None
    return Data(data.name, images, test)


def _look(
    sources: Sequence[Source], preprocess: Preprocess, ranks: Ranks, device: torch.device
) -> Tensor:
    """Look at a share of the images, and return what all ranks found (N×10 int64)."""
    found = torch.zeros(len(sources), 10, dtype=torch.int64, device=device)
    # Neighbours, since they lie in the same archives.
    first, end = (len(sources) * (ranks.rank + i) // ranks.world_size for i in range(2))
    meetings = iter(range(MEETING_IMAGES, len(sources) // ranks.world_size, MEETING_IMAGES))
    meeting = next(meetings, None)
    for chunk in decode_in_order(sources, torch.arange(first, end), preprocess):
        found[chunk.numbers.to(device)] = _describe(chunk).to(device)
        if meeting is not None and int(chunk.numbers[-1]) - first >= meeting:
            # Who waits for a slow rank to the end would give up on it.
            ranks.add(torch.zeros(1, device=device))
            meeting = next(meetings, None)
    ranks.add(found)
    found = found.cpu()
    broken = torch.nonzero(found[:, SIZE.start] == 0).flatten().tolist()
    if broken:
        # Every rank knows of all of them, and of none why.
        raise_for(_faults([sources[i] for i in broken[:MAX_SHOWN]], preprocess), len(broken))
    return found


def _describe(chunk: Chunk) -> Tensor:
    pixels = chunk.images.reshape(len(chunk.images), -1, 3).astype(np.int64)
    digests = [hashlib.blake2b(image.data, digest_size=16).digest() for image in chunk.images]
    columns = (
        np.frombuffer(b"".join(digests), np.int64).reshape(-1, 2),
        chunk.sizes,
        pixels.sum(axis=1),
        (pixels**2).sum(axis=1),
    )
    return torch.from_numpy(np.concatenate(columns, axis=1))


def _faults(sources: Sequence[Source], preprocess: Preprocess) -> list[str]:
    side = preprocess.input_size
    images = np.zeros((len(sources), side, side, 3), np.uint8)
    return decode_chunk(sources, preprocess, images, np.zeros((len(sources), 2), np.int64))


def _streamed(
    encoded: Encoded, preprocess: Preprocess, found: Tensor, config: TrainingConfig
) -> StreamedImages:
    side = preprocess.input_size
    low, high = found[:, SIZE].amin(dim=0).tolist(), found[:, SIZE].amax(dim=0).tolist()
    return StreamedImages(
        images=torch.empty(0, side, side, 3, dtype=torch.uint8),
        labels=torch.from_numpy(encoded.labels),
        label_names=encoded.label_names,
        size_range=(low[0], high[0], low[1], high[1]),
        is_mapped=True,
        catalog=Catalog(
            encoded.images,
            preprocess,
            blocks_of(place for _, place in encoded.images),
            found[:, DIGEST].contiguous().view(torch.uint8),
            found[:, SIZE],
            found[:, SUMS],
        ),
        buffer_images=max(1, config.stream.buffer_mib * 2**20 // (side * side * 3)),
    )


def _kept(path: Path, key: str) -> Tensor | None:
    """Return what the run holds, if it is of the same images."""
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        if (file.metadata() or {}).get(IDENTITY) != key:
            return None
        found: Tensor = file.get_tensor(FOUND)
        return found


def _keep(place: RunPlace, found: Tensor, key: str) -> None:
    path = place.run.survey
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors({FOUND: found}, temporary, {IDENTITY: key})
    temporary.replace(path)
    place.keep(path)
