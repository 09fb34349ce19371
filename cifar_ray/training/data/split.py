"""Splits of a dataset: by seed, each class alike, and no image in two of them.

Images that are equal, pixel for pixel, after decode and preprocess are one image for this purpose,
whatever their labels. A copy that the draw put into another split than the first one is left out,
and so is a training image that is among the test images that DATA brings.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_ray.config.training import TrainingConfig
from cifar_ray.errors import InputError
from cifar_ray.training.data.dataset import LabelledImages
from cifar_ray.training.data.sources import Data
from cifar_ray.training.data.streaming import StreamedImages

DIGEST_IMAGES = 256
Part = float | int | None
"""A share of each class, a number of images over all classes, or all that is left."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found, and done, about equal images."""

    copies: int = 0
    """Images that equal an earlier one."""
    left_out: int = 0
    """Those of them that would have been in two splits."""


@dataclass(frozen=True, slots=True)
class Splits:
    """Images to train on, to choose and calibrate by, and for the last number."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages | None
    duplicates: Duplicates = Duplicates()


def split_data(data: Data, config: TrainingConfig) -> Splits:
    """Split by the config's seed; DATA's own test images, if it has any, are the test images.

    Raises `InputError` if there are too few images.
    """
    own_test = None if config.splits.leave_test_images else data.test
    held_out = config.test_fraction if own_test is None else 0.0
    drawn = split_rows(
        data.train,
        [
            config.splits.num_validation_images or config.validation_fraction,
            held_out,
            config.splits.num_training_images,
        ],
        config.seed,
    )
    rows, duplicates = without_leaks(
        drawn, digests(data.train), digests(own_test) if own_test is not None else []
    )
    validation, test = (data.train.select(part) for part in rows[:2])
    training = data.train.view(rows[2])
    if not len(validation) or not len(training) or (held_out and not len(test)):
        raise InputError(f"DATA has {len(data.train)} images, too few to split by {config.recipe}.")
    return Splits(training, validation, test if held_out else own_test, duplicates)


def split_rows(data: LabelledImages, parts: Sequence[Part], seed: int) -> list[Tensor]:
    """Return the rows of each part, ascending; each class is shuffled and cut alike."""
    counts = torch.bincount(data.labels, minlength=len(data.label_names)).tolist()
    sizes = [_sizes(part, counts) for part in parts]
    taken = [sum(of_class) for of_class in zip(*sizes, strict=True)]
    if any(size > count for size, count in zip(taken, counts, strict=True)):
        raise InputError(f"DATA has {sum(counts)} images, too few for the numbers in `splits`.")
    generator = torch.Generator().manual_seed(seed)
    rows: list[list[Tensor]] = [[] for _ in parts]
    for label in range(len(counts)):
        members = torch.nonzero(data.labels == label).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        start = 0
        for place, part, size in zip(rows, parts, sizes, strict=True):
            end = len(members) if part is None else start + size[label]
            place.append(members[start:end])
            start = end
    return [torch.cat(place).sort().values for place in rows]


def _sizes(part: Part, counts: list[int]) -> list[int]:
    """Return how many images of each class a part takes; of all that is left it is 0 for now."""
    if part is None:
        return [0] * len(counts)
    if isinstance(part, float):
        return [round(count * part) for count in counts]
    shares = [part * count / sum(counts) for count in counts]
    sizes = [int(share) for share in shares]
    by_remainder = sorted(range(len(counts)), key=lambda label: sizes[label] - shares[label])
    for label in by_remainder[: part - sum(sizes)]:
        sizes[label] += 1
    return sizes


def digests(data: LabelledImages) -> list[bytes]:
    """Return a digest of each image's pixels."""
    if isinstance(data, StreamedImages):
        return data.digests()
    return [
        hashlib.blake2b(memoryview(image.numpy()), digest_size=16).digest()
        for rows in torch.arange(len(data)).split(DIGEST_IMAGES)
        for image in data.take(rows)
    ]


def without_leaks(
    parts: list[Tensor], of_image: list[bytes], of_test: list[bytes]
) -> tuple[list[Tensor], Duplicates]:
    """Leave out rows whose image is in an earlier part, or among the test images."""
    part_of = dict.fromkeys(of_test, -1)
    kept = [
        [row for row in rows.tolist() if part_of.setdefault(of_image[row], number) == number]
        for number, rows in enumerate(parts)
    ]
    found = Duplicates(
        copies=len(of_image) + len(of_test) - len({*of_image, *of_test}),
        left_out=sum(map(len, parts)) - sum(map(len, kept)),
    )
    return [torch.tensor(rows, dtype=torch.int64) for rows in kept], found
