"""Labelled images in memory: how each form of DATA is read and decoded.

CIFAR-10 is read in its Parquet form (columns `image` and `label`) or in its binary form
(`data_batch_1.bin` …); a folder with a sub-folder a class and tar shards are read as they lie.
Every image goes through the decode and preprocess that labelling uses.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifar_ray.errors import InputError
from cifar_ray.images.labels import CIFAR10
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.storage import S3_SCHEME
from cifar_ray.training.data.bucket import File, classes_in
from cifar_ray.training.data.decoded import decode_to_file, decode_to_memory
from cifar_ray.training.data.reading import ParquetRow, Place, Source, image_bytes, readable
from cifar_ray.training.data.tar import read_tars

STATISTICS_IMAGES = 1024
TAR = ".tar"
BINARY_RECORD_BYTES = 1 + 3 * 32 * 32


Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Images N×S×S×3 uint8, labels N int64, and the names that labels index.

    `size_range` is (least width, greatest width, least height, greatest height) before preprocess.
    Where images are too many for the memory, `images` is a file's content (`decoded.py`), of which
    `rows`, if given, are meant, and `take` reads them.
    """

    images: Tensor
    labels: Tensor
    label_names: tuple[str, ...]
    size_range: tuple[int, int, int, int]
    is_mapped: bool = False
    rows: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def take(self, indices: Tensor) -> Tensor:
        """Return the images at `indices`, on the labels' device."""
        images = self.images[indices if self.rows is None else self.rows[indices]]
        return images.to(self.labels.device) if self.is_mapped else images

    def select(self, indices: Tensor) -> "LabelledImages":
        """Return the images at `indices`, in that order, in memory."""
        return LabelledImages(
            self.take(indices), self.labels[indices], self.label_names, self.size_range
        )

    def view(self, indices: Tensor) -> "LabelledImages":
        """Return the images at `indices`; those of a file stay there."""
        if not self.is_mapped:
            return self.select(indices)
        rows = indices if self.rows is None else self.rows[indices]
        return replace(self, labels=self.labels[indices], rows=rows)

    def to(self, device: torch.device) -> "LabelledImages":
        """Return the same on another device; images of a file come there as they are taken."""
        images = self.images if self.is_mapped else self.images.to(device)
        return replace(self, images=images, labels=self.labels.to(device))

    def statistics(self) -> Statistics:
        """Return mean and standard deviation a channel, of pixels in [0, 1]."""
        count = torch.zeros(3, 256, dtype=torch.int64)
        for batch in (self.take(rows) for rows in torch.arange(len(self)).split(STATISTICS_IMAGES)):
            for channel in range(3):
                flat = batch[..., channel].flatten().long().cpu()
                count[channel] += torch.bincount(flat, minlength=256)
        values = torch.arange(256, dtype=torch.float64) / 255
        share = count.double() / count.sum(dim=1, keepdim=True)
        return of_moments((share * values).sum(dim=1), (share * values**2).sum(dim=1))


def of_moments(mean: Tensor, mean_of_squares: Tensor) -> Statistics:
    """Return the mean and the standard deviation of three channels."""
    variance = mean_of_squares.sub(mean**2)
    # A channel that is the same everywhere has no deviation to divide by.
    std = variance.clamp_min(0).sqrt().clamp_min(1 / 255)
    return _three(mean), _three(std)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded images, or where they lie, each with the name that a message gives it; labels."""

    images: list[Source]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]


@readable()
def read_shards(
    files: Sequence[File], label_names: tuple[str, ...] | None = None, leave_images: bool = False
) -> Encoded:
    """Read Parquet files, or WebDataset's tar shards (`tar.py`), all of one kind.

    Integer labels have the names `label_names`, else those that the files give them, else are
    their own. With `leave_images` the bytes of images stay where they are, in Parquet too.
    """
    if not files[0].name.endswith(TAR):
        return read_parquet(files, label_names, leave_images)
    images, labels = read_tars(files)
    if not labels:
        raise InputError(f"{files[0]}: there is no image with a label in the tar shards.")
    return Encoded([(str(m), m) for m in images], *_numbered(labels, label_names, files[0]))


def read_parquet(
    files: Sequence[File], label_names: tuple[str, ...] | None = None, leave_images: bool = False
) -> Encoded:
    """Read Parquet files with `image` and `label` columns.

    `image` is encoded bytes, or a struct with a field `bytes` as Hugging Face's datasets write it.
    `label` is text, or an integer, whose names are `label_names`, else those in the metadata of
    Hugging Face's datasets, else the numbers. Raises `InputError` for other columns and labels.
    """
    images: list[Source] = []
    labels: list[int | str] = []
    for path in files:
        with path.open("rb") as file:
            schema = _schema(file, path)
            if not {"image", "label"} <= set(schema.names):
                raise InputError(
                    f"{path} has the columns {schema.names}; image and label are needed."
                )
            if leave_images:
                places: Iterable[Place] = list(_rows_in(file, path))
                table = pq.read_table(file, columns=["label"])
            else:
                table = pq.read_table(file, columns=["image", "label"])
                places = (data or b"" for data in image_bytes(table["image"]).to_pylist())
        images += [(f"{path}, row {i}", place) for i, place in enumerate(places)]
        labels += table["label"].to_pylist()
        label_names = label_names or _names_in(schema)
    if not labels:
        raise InputError(f"{files[0]}: there is no row in the Parquet files.")
    return Encoded(images, *_numbered(labels, label_names, files[0]))


def _rows_in(file: BinaryIO, path: File) -> Iterator[ParquetRow]:
    described = pq.read_metadata(file)
    for group in range(described.num_row_groups):
        for row in range(described.row_group(group).num_rows):
            yield ParquetRow(path, group, row)


def _schema(file: BinaryIO, path: File) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{path} is no Parquet file. DATA is `cifar10`, a folder with a sub-folder a class,"
            " Parquet with `image` and `label` columns, or WebDataset's .tar shards."
        ) from error


def _names_in(schema: pa.Schema) -> tuple[str, ...] | None:
    """Return the names of labels that Hugging Face's datasets put into a file's metadata."""
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    names = described.get("info", {}).get("features", {}).get("label", {}).get("names")
    return tuple(names) if names else None


def _numbered(
    labels: list[int | str], names: tuple[str, ...] | None, where: File
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return labels as numbers, and their names."""
    if all(isinstance(label, str) for label in labels):
        names = names or tuple(sorted(str(label) for label in set(labels)))
        numbers = {name: number for number, name in enumerate(names)}
        labels = [numbers.get(str(label), -1) for label in labels]
    elif not all(isinstance(label, int) for label in labels):
        raise InputError(f"{where}: `label` must hold text or integers, in every row.")
    found = np.array(labels, dtype=np.int64)
    names = names or tuple(str(number) for number in range(int(found.max()) + 1))
    if not 0 <= found.min() <= found.max() < len(names):
        raise InputError(f"{where}: labels must be among {', '.join(names[:20])}.")
    return found, names


@readable()
def read_folder(folder: str) -> Encoded:
    """Read a folder or an `s3://` place with a sub-folder a class, whose names are the labels."""
    in_bucket = folder.startswith(S3_SCHEME)
    files = classes_in(folder) if in_bucket else _classes_in(Path(folder).expanduser())
    if len(files) < 2:
        raise InputError(
            f"{folder} has {len(files)} sub-folders. DATA is a folder with a sub-folder a class, "
            "at least two of them; or `cifar10`."
        )
    counts = [len(of_class) for of_class in files.values()]
    if not any(counts):
        raise InputError(f"{folder}: its sub-folders hold no files.")
    images: list[Source] = [(str(file), file) for of_class in files.values() for file in of_class]
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return Encoded(images, labels, tuple(files))


def _classes_in(folder: Path) -> dict[str, list[Path]]:
    classes = sorted(
        path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"
    )
    return {path.name: sorted(_files_below(path)) for path in classes}


def _files_below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> NoReturn:
        raise error

    # Not `rglob`, which passes over folders that it may not read.
    for below, _, names in os.walk(folder, onerror=refuse):
        files = (Path(below, name) for name in names if name[0] not in "._")
        yield from (file for file in files if file.is_file())


def decode_all(
    encoded: Encoded, preprocess: Preprocess, memory_bytes: int | None = None
) -> LabelledImages:
    """Decode and preprocess every image; `InputError` names those that cannot be decoded.

    What would take more than `memory_bytes`, by default half of the memory that is free, goes to a
    file in the cache folder, which the same images find there the next time.
    """
    side = preprocess.input_size
    if memory_bytes is None:
        memory_bytes = psutil.virtual_memory().available // 2
    is_mapped = len(encoded.images) * side * side * 3 > memory_bytes
    decode = decode_to_file if is_mapped else decode_to_memory
    images, sizes = decode(encoded.images, preprocess)
    low, high = sizes.min(axis=0), sizes.max(axis=0)
    return LabelledImages(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(encoded.labels),
        label_names=encoded.label_names,
        size_range=(int(low[0]), int(high[0]), int(low[1]), int(high[1])),
        is_mapped=is_mapped,
    )


def read_binary(paths: list[Path]) -> LabelledImages:
    """Read CIFAR-10's binary files: records of a label byte and 3×32×32 planes."""
    data = np.concatenate([np.fromfile(path, dtype=np.uint8) for path in paths])
    if len(data) % BINARY_RECORD_BYTES:
        raise InputError(f"{paths[0].parent}: the binary files are not of CIFAR-10's record size.")
    records = torch.from_numpy(data).view(-1, BINARY_RECORD_BYTES)
    images = records[:, 1:].reshape(-1, 3, 32, 32).permute(0, 2, 3, 1).contiguous()
    return LabelledImages(images, records[:, 0].long(), CIFAR10, (32, 32, 32, 32))


def _three(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = values.tolist()
    return red, green, blue
