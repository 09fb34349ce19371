"""Where DATA lies: `cifar10`, found or downloaded; a folder or bucket with classes, or shards."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from cifar_ray.errors import InputError
from cifar_ray.images.labels import CIFAR10
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.storage import S3_SCHEME
from cifar_ray.training.data.bucket import File, shards_in
from cifar_ray.training.data.dataset import (
    TAR,
    Encoded,
    LabelledImages,
    decode_all,
    read_binary,
    read_folder,
    read_parquet,
    read_shards,
)
from cifar_ray.training.data.download import Progress, download_cifar10
from cifar_ray.training.data.reading import readable

DATA_VARIABLE = "CIFAR_RAY_DATA"
SHARDS = (".parquet", TAR)
JPEG_MAGIC = b"\xff\xd8\xff"
RESIZE_BEFORE_CROP = 256 / 224
"""Short side over crop, as ImageNet's networks are evaluated."""


@dataclass(frozen=True, slots=True)
class Data:
    """Images to train on, and, where DATA brings them, test images of its own."""

    name: str
    train: LabelledImages
    test: LabelledImages | None


@dataclass(frozen=True, slots=True)
class Found:
    """DATA before it is decoded."""

    name: str
    train: Encoded
    test: Encoded | None


def load(data: str, input_size: int) -> Data:
    """Read DATA for a network of `input_size`; `InputError` if it is not there or not readable."""
    if data == "cifar10" and not cifar10_parquet().is_file():
        return _load_binary_cifar10(input_size)
    found, preprocess = find(data), geometry(input_size)
    test = decode_all(found.test, preprocess) if found.test else None
    return Data(found.name, decode_all(found.train, preprocess), test)


def find(data: str, leave_images: bool = False) -> Found:
    """Find DATA; with `leave_images`, its training images are read from where they are, later."""
    if data == "cifar10":
        return _find_cifar10(leave_images)
    name = data_name(data)
    files = shard_files(data)
    if not files:
        return Found(name, read_folder(data), None)
    of_test = own_test_files(files)
    train = read_shards([f for f in files if f not in of_test], leave_images=leave_images)
    return Found(name, train, read_shards(of_test, train.label_names) if of_test else None)


def check_data(data: str) -> None:
    """Raise `InputError` if DATA is not there, or has no classes, without reading an image.

    `cifar10` is not looked for: where it is not there, it is downloaded.
    """
    if data != "cifar10" and not shard_files(data):
        read_folder(data)


def data_name(data: str) -> str:
    """Return what a folder, a bucket's prefix or a shard is called."""
    path = Path(data)
    return path.stem if path.suffix in SHARDS else path.name


def own_test_files(files: Sequence[File]) -> list[File]:
    """Return a dataset's test files, where there are others beside them.

    As published datasets name them: train-00000-of-00002.parquet, test-….
    """
    found = [file for file in files if Path(file.name).name.startswith("test")]
    return found if len(found) < len(files) else []


@readable()
def shard_files(data: str) -> Sequence[File]:
    """Return the Parquet file or tar shard that DATA is, or those directly in it.

    None for a folder of classes. Raises `InputError` if DATA is not there, or is of both kinds.
    """
    if data.startswith(S3_SCHEME):
        found: Sequence[File] = shards_in(data, SHARDS)
    else:
        path = Path(data).expanduser()
        if not path.exists():
            raise InputError(
                f"DATA {path} is not there. Give `cifar10`, a folder or s3:// place with a "
                "sub-folder a class, Parquet with `image` and `label` columns, or WebDataset's "
                ".tar shards."
            )
        if path.is_file():
            return [path]
        found = sorted(file for file in path.iterdir() if file.suffix in SHARDS)
    if len({Path(file.name).suffix for file in found}) > 1:
        raise InputError(f"{data} holds .parquet and .tar files. DATA is of one kind.")
    return found


def geometry(input_size: int) -> Preprocess:
    """Return how images become inputs; mean and deviation are those of the data, found later."""
    neutral = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    if input_size <= 64:
        return Preprocess(squash=input_size, **neutral)
    return Preprocess(resize=round(input_size * RESIZE_BEFORE_CROP), crop=input_size, **neutral)


def _find_cifar10(leave_images: bool) -> Found:
    train, test = cifar10_parquet(), cifar10_parquet().with_name("test.parquet")
    if not train.is_file():
        raise InputError("CIFAR-10's binary files are not streamed: leave out stream.enabled.")
    return Found(
        "cifar10",
        read_parquet([train], CIFAR10, leave_images),
        read_parquet([test], CIFAR10) if test.is_file() else None,
    )


def _load_binary_cifar10(input_size: int) -> Data:
    if input_size != 32:
        raise InputError("CIFAR-10's binary files are 32×32; take a network for 32×32 inputs.")
    folder = find_cifar10()
    train = read_binary(sorted(folder.glob("data_batch_*.bin")))
    return Data("cifar10", train, read_binary([folder / "test_batch.bin"]))


def find_cifar10(progress: Progress | None = None) -> Path:
    """Return the folder of CIFAR-10, in either form; it is downloaded if it is nowhere."""
    root = os.environ.get(DATA_VARIABLE)
    for name in ("", "cifar10", "cifar-10-batches-bin") if root else ():
        folder = Path(root or "") / name
        if (folder / "train.parquet").is_file() or (folder / "data_batch_1.bin").is_file():
            return folder
    return download_cifar10(progress=progress)


def cifar10_parquet() -> Path:
    """Return where CIFAR-10's training images are in their Parquet form, if they are in that."""
    return find_cifar10() / "train.parquet"


def cifar10_is_lossy() -> bool:
    """Tell whether CIFAR-10's training images, as found here, are JPEG and so not the originals."""
    parquet = cifar10_parquet()
    if not parquet.is_file():
        return False
    first = next(pq.ParquetFile(parquet).iter_batches(1, columns=["image"]))
    return bool(first["image"][0].as_py().startswith(JPEG_MAGIC))
