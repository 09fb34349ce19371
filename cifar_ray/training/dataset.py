"""Labelled images in memory: where DATA lies, how it is read, and how it is split by seed.

CIFAR-10 is read in its Parquet form (columns `image` and `label`) or in its binary form
(`data_batch_1.bin` …); a folder with a sub-folder a class is read as it lies.
Every image goes through the decode and preprocess that labelling uses.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifar_ray.errors import ImageFault, InputError
from cifar_ray.images.decode import decode
from cifar_ray.images.labels import CIFAR10
from cifar_ray.images.preprocess import Preprocess

DECODE_CHUNK = 512
BINARY_RECORD_BYTES = 1 + 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Images N×S×S×3 uint8, labels N int64, and the names that labels index.

    `size_range` is (least width, greatest width, least height, greatest height) before preprocess.
    """

    images: Tensor
    labels: Tensor
    label_names: tuple[str, ...]
    size_range: tuple[int, int, int, int]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def select(self, indices: Tensor) -> "LabelledImages":
        """Return the images at `indices`, in that order."""
        return LabelledImages(
            self.images[indices], self.labels[indices], self.label_names, self.size_range
        )

    def to(self, device: torch.device) -> "LabelledImages":
        """Return the same on another device."""
        return LabelledImages(
            self.images.to(device), self.labels.to(device), self.label_names, self.size_range
        )

    def statistics(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Return mean and standard deviation a channel, of pixels in [0, 1]."""
        count = torch.zeros(3, 256, dtype=torch.int64)
        for batch in self.images.split(4096):
            for channel in range(3):
                flat = batch[..., channel].flatten().long().cpu()
                count[channel] += torch.bincount(flat, minlength=256)
        values = torch.arange(256, dtype=torch.float64) / 255
        share = count.double() / count.sum(dim=1, keepdim=True)
        mean = (share * values).sum(dim=1)
        variance = (share * values**2).sum(dim=1).sub(mean**2)
        # A channel that is the same everywhere has no deviation to divide by.
        std = variance.clamp_min(0).sqrt().clamp_min(1 / 255)
        return _three(mean), _three(std)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded images, as bytes or as files, each with the name that a message gives it; labels."""

    images: list[tuple[str, bytes | Path]]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]


def read_parquet(path: Path, label_names: tuple[str, ...]) -> Encoded:
    """Read a Parquet file with `image` (encoded bytes) and `label` (integer) columns."""
    columns = pq.read_schema(path).names
    if not {"image", "label"} <= set(columns):
        raise InputError(f"{path} has the columns {columns}; `image` and `label` are needed.")
    table = pq.read_table(path, columns=["image", "label"])
    labels = table["label"].to_numpy().astype(np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(label_names):
        raise InputError(f"{path}: labels must lie between 0 and {len(label_names) - 1}.")
    rows = enumerate(table["image"].to_pylist())
    images: list[tuple[str, bytes | Path]] = [(f"{path}, row {i}", data) for i, data in rows]
    return Encoded(images, labels, label_names)


def read_folder(folder: Path) -> Encoded:
    """Read a folder with a sub-folder a class; the sub-folders' names are the labels."""
    classes = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"
    )
    if len(classes) < 2:
        raise InputError(
            f"{folder} has {len(classes)} sub-folders. DATA is a folder with a sub-folder a class, "
            "at least two of them; or `cifar10`."
        )
    files = [
        (path, number)
        for number, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.is_file() and path.name[0] not in "._"
    ]
    if not files:
        raise InputError(f"{folder}: its sub-folders hold no files.")
    labels = np.array([number for _, number in files], dtype=np.int64)
    return Encoded([(str(path), path) for path, _ in files], labels, tuple(classes))


def decode_all(encoded: Encoded, preprocess: Preprocess) -> LabelledImages:
    """Decode and preprocess every image; `InputError` names those that cannot be decoded."""
    images = encoded.images
    starts = range(0, len(images), DECODE_CHUNK)
    with ThreadPoolExecutor() as pool:
        chunks = list(
            pool.map(lambda at: _decode_chunk(images[at : at + DECODE_CHUNK], preprocess), starts)
        )
    faults = [fault for chunk in chunks for fault in chunk[2]]
    if faults:
        more = f"\n  … and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise InputError(
            f"{len(faults)} images of DATA cannot be decoded; remove or mend them:\n  "
            + "\n  ".join(faults[:10])
            + more
        )
    sizes = np.concatenate([chunk[1] for chunk in chunks])
    low, high = sizes.min(axis=0), sizes.max(axis=0)
    return LabelledImages(
        images=torch.from_numpy(np.concatenate([chunk[0] for chunk in chunks])),
        labels=torch.from_numpy(encoded.labels),
        label_names=encoded.label_names,
        size_range=(int(low[0]), int(high[0]), int(low[1]), int(high[1])),
    )


def _decode_chunk(
    chunk: list[tuple[str, bytes | Path]], preprocess: Preprocess
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    options = preprocess.decode_options("pillow", scaling=False)
    side = preprocess.input_size
    images = np.zeros((len(chunk), side, side, 3), dtype=np.uint8)
    sizes = np.zeros((len(chunk), 2), dtype=np.int64)
    faults = []
    for row, (name, data) in enumerate(chunk):
        try:
            image = decode(data if isinstance(data, bytes) else data.read_bytes(), options)
        except ImageFault as fault:
            faults.append(f"{name}: {fault.status}, {fault.error}")
            continue
        images[row] = preprocess.apply(image.pixels)
        sizes[row] = image.width, image.height
    return images, sizes, faults


def read_binary(paths: list[Path]) -> LabelledImages:
    """Read CIFAR-10's binary files: records of a label byte and 3×32×32 planes."""
    data = np.concatenate([np.fromfile(path, dtype=np.uint8) for path in paths])
    if len(data) % BINARY_RECORD_BYTES:
        raise InputError(f"{paths[0].parent}: the binary files are not of CIFAR-10's record size.")
    records = torch.from_numpy(data).view(-1, BINARY_RECORD_BYTES)
    images = records[:, 1:].reshape(-1, 3, 32, 32).permute(0, 2, 3, 1).contiguous()
    return LabelledImages(images, records[:, 0].long(), CIFAR10, (32, 32, 32, 32))


def split(data: LabelledImages, fractions: list[float], seed: int) -> Iterator[LabelledImages]:
    """Split by seed, each class alike, into parts of the given fractions and, last, the rest."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[] for _ in range(len(fractions) + 1)]
    for label in range(len(data.label_names)):
        members = torch.nonzero(data.labels == label).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        start = 0
        for part, fraction in zip(parts, fractions, strict=False):
            end = start + round(len(members) * fraction)
            part.append(members[start:end])
            start = end
        parts[-1].append(members[start:])
    for part in parts:
        yield data.select(torch.cat(part).sort().values)


def _three(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = values.tolist()
    return red, green, blue
