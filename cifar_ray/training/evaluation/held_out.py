"""Labelled images that a model is judged by, decoded as they are asked for."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cifar_ray.errors import ImageFault, InputError, did_you_mean
from cifar_ray.images.decode import decode
from cifar_ray.images.labels import CIFAR10
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.training.data.dataset import (
    Encoded,
    LabelledImages,
    read_binary,
    read_folder,
    read_parquet,
    read_shards,
)
from cifar_ray.training.data.reading import Place, Reader, readable
from cifar_ray.training.data.sources import find_cifar10, own_test_files, shard_files
from cifar_ray.training.evaluation.metrics import Labels

Images = NDArray[np.uint8]
Split = Literal["test", "validation", "all"]
"""`all`: DATA as a whole, whatever it was made for."""
MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Images by number: what each is called, its label, and how to get its pixels."""

    dataset: str
    split: Split
    names: Sequence[str]
    labels: Labels
    """Index `label_names`."""
    label_names: tuple[str, ...]
    pixels: Callable[[Sequence[int], Preprocess], Images]
    """Map N numbers to N×S×S×3 uint8; `InputError` names an image that cannot be decoded."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def description(self) -> str:
        """Which images these are, for a reader: `10,000 test images of cifar10`."""
        number = f"{len(self):,}"
        kind = f"all {number} images" if self.split == "all" else f"{number} {self.split} images"
        return f"{kind} of {self.dataset}"


def load_held_out(data: str, label_names: tuple[str, ...]) -> HeldOut:
    """Find DATA, with its labels as numbers into `label_names`.

    `cifar10` stands for its test images. Raises `InputError` if DATA is not there, or has a class
    that is not among the names.
    """
    if data == "cifar10":
        return _load_cifar10(label_names)
    files = shard_files(data)
    chosen = own_test_files(files) or files
    encoded = read_shards(chosen, label_names) if chosen else read_folder(data)
    if not encoded.images:
        raise InputError(f"DATA {data} holds no images.")
    return _from_encoded(encoded, data, "test" if own_test_files(files) else "all", label_names)


def in_memory(data: LabelledImages, dataset: str, split: Split) -> HeldOut:
    """Wrap images that went through the preprocess of their model already."""
    images = data.images.cpu().numpy()
    return HeldOut(
        dataset,
        split,
        [f"image {number}" for number in range(len(data))],
        data.labels.cpu().numpy(),
        data.label_names,
        lambda numbers, _: images[list(numbers)],
    )


def _load_cifar10(label_names: tuple[str, ...]) -> HeldOut:
    folder = find_cifar10()
    parquet, binary = folder / "test.parquet", folder / "test_batch.bin"
    if parquet.is_file():
        encoded = read_parquet([parquet], CIFAR10)
        return _from_encoded(encoded, str(folder), "test", label_names)
    if not binary.is_file():
        raise InputError(f"{folder} has no test images: neither {parquet.name} nor {binary.name}.")
    data = read_binary([binary])
    images = data.images.numpy()
    return HeldOut(
        "cifar10",
        "test",
        [f"row {number}" for number in range(len(data))],
        match_labels(data.labels.numpy(), CIFAR10, label_names),
        label_names,
        lambda numbers, preprocess: np.stack([preprocess.apply(images[i]) for i in numbers]),
    )


def _from_encoded(
    encoded: Encoded, root: str, split: Split, label_names: tuple[str, ...]
) -> HeldOut:
    def pixels(numbers: Sequence[int], preprocess: Preprocess) -> Images:
        with ThreadPoolExecutor() as pool:
            chosen = [encoded.images[i] for i in numbers]
            return np.stack(
                list(pool.map(lambda item: _decode(item[0], item[1], preprocess), chosen))
            )

    return HeldOut(
        Path(root).name,
        split,
        [name.removeprefix(root).lstrip("/\\, ") for name, _ in encoded.images],
        match_labels(encoded.labels, encoded.label_names, label_names),
        label_names,
        pixels,
    )


def _decode(name: str, place: Place, preprocess: Preprocess) -> Images:
    with readable(), Reader() as reader:
        content = reader.read(place)
    try:
        image = decode(content, preprocess.decode_options("pillow", scaling=False))
    except ImageFault as fault:
        raise InputError(
            f"{name} of DATA cannot be decoded ({fault.status}: {fault.error}). Remove or mend it:"
            " a figure that leaves images out would not be one of all of them."
        ) from fault
    return preprocess.apply(image.pixels)


def match_labels(labels: Labels, theirs: tuple[str, ...], ours: tuple[str, ...]) -> Labels:
    """Turn numbers into `theirs` into numbers into `ours`, by name; `InputError` if one is new."""
    places = {name: place for place, name in enumerate(ours)}
    unknown = [theirs[i] for i in np.unique(labels).tolist() if theirs[i] not in places]
    if unknown:
        shown = "\n  ".join(f"{name}: {did_you_mean(name, ours)}" for name in unknown[:MAX_SHOWN])
        more = f"\n  … and {len(unknown) - MAX_SHOWN} more" if len(unknown) > MAX_SHOWN else ""
        raise InputError(
            f"DATA has classes that the bundle does not know:\n  {shown}{more}\n"
            "Rename the sub-folders as the bundle's labels, or leave these classes out."
        )
    order = np.array([places.get(name, -1) for name in theirs], dtype=np.int64)
    return order[labels]
