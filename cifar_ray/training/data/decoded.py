"""Decoded images: in memory, or, where they are too many for it, in a file of the cache folder.

The file holds N×S×S×3 bytes as they lie in memory, and is mapped: the operating system reads what
a batch takes and keeps what it has room for. It is named after the images (their names, sizes and
times, or their bytes) and the preprocessing, so that a run that goes on does not decode again.
Training visits it in a random order over all of it, which a solid-state disk serves well.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from cifar_ray.errors import ImageFault, InputError
from cifar_ray.images.decode import decode
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models.cache import cache_folder
from cifar_ray.storage.folder_faults import folder_faults, full_disk
from cifar_ray.training.data.bucket import File, StoredFile, TarMember
from cifar_ray.training.data.reading import ParquetRow, Reader, Source

Images = NDArray[np.uint8]
Sizes = NDArray[np.int64]
"""N×2: width and height before preprocess."""
DECODE_CHUNK = 512
MAX_SHOWN = 10
"""Faults in a message."""
STORED_CHUNK, STORED_READERS = 16, 32
"""Of images in a bucket, each of which is waited for."""


def decode_to_memory(sources: Sequence[Source], preprocess: Preprocess) -> tuple[Images, Sizes]:
    """Decode and preprocess images; `InputError` names those that cannot be decoded."""
    images = np.zeros(_shape(sources, preprocess), np.uint8)
    return images, _decode_into(images, sources, preprocess)


def decode_to_file(sources: Sequence[Source], preprocess: Preprocess) -> tuple[Images, Sizes]:
    """Do the same into a file, or find the one that is there."""
    folder = cache_folder() / "decoded"
    with folder_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
    pixels = folder / f"{identity(sources, preprocess)}.pixels"
    sizes_file = pixels.with_suffix(".npy")
    shape = _shape(sources, preprocess)
    if not (pixels.exists() and sizes_file.exists()):
        _check_room(folder, prod(shape))
        unfinished = pixels.with_suffix(f".{os.getpid()}")
        with full_disk(folder):
            try:
                images = np.memmap(unfinished, np.uint8, "w+", shape=shape)
                sizes = _decode_into(images, sources, preprocess)
                images.flush()
                np.save(sizes_file, sizes)
                unfinished.replace(pixels)
            finally:
                unfinished.unlink(missing_ok=True)
    # Copy on write: nothing writes, and torch asks for an array that could be written.
    return np.memmap(pixels, np.uint8, "c", shape=shape), np.load(sizes_file)


def _check_room(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise InputError(
            f"DATA's images, decoded, need {needed_bytes / 2**30:,.1f} GiB, for which there is no "
            f"room in memory and none in {folder}, where {free_bytes / 2**30:,.1f} GiB are free. "
            "Let CIFAR_RAY_CACHE name a larger disk, or read and decode them anew in each epoch: "
            "--set stream.enabled=true."
        )


def _shape(sources: Sequence[Source], preprocess: Preprocess) -> tuple[int, int, int, int]:
    return len(sources), preprocess.input_size, preprocess.input_size, 3


def identity(sources: Sequence[Source], preprocess: Preprocess) -> str:
    """Return a name for images as they are now, and what is made of them."""
    digest = hashlib.blake2b(preprocess.model_dump_json().encode(), digest_size=16)
    # Of archives, whose images follow one another: a look at the file each would be slow.
    version = lru_cache(maxsize=1)(_version)
    for name, data in sources:
        digest.update(f"{name}\0".encode("utf-8", "surrogatepass"))
        if isinstance(data, bytes):
            digest.update(hashlib.blake2b(data).digest())
        elif isinstance(data, TarMember | ParquetRow):
            digest.update(f"{version(data.file)}\0".encode())
        else:
            digest.update(f"{_version(data)}\0".encode())
    return digest.hexdigest()


def _version(file: File) -> str:
    if isinstance(file, StoredFile):
        return str(file.written_at)
    state = file.stat()
    return f"{state.st_size} {state.st_mtime_ns}"


def _decode_into(images: Images, sources: Sequence[Source], preprocess: Preprocess) -> Sizes:
    sizes = np.zeros((len(sources), 2), np.int64)
    stored = any(isinstance(data, StoredFile) for _, data in sources[:1])
    chunk_size, num_threads = (STORED_CHUNK, STORED_READERS) if stored else (DECODE_CHUNK, None)

    def decode_from(start: int) -> list[str]:
        chunk = slice(start, start + chunk_size)
        return decode_chunk(sources[chunk], preprocess, images[chunk], sizes[chunk])

    with ThreadPoolExecutor(num_threads) as pool:
        chunks = list(pool.map(decode_from, range(0, len(sources), chunk_size)))
    faults = [fault for chunk in chunks for fault in chunk]
    if faults:
        raise_for(faults[:MAX_SHOWN], len(faults))
    return sizes


def raise_for(faults: Sequence[str], number: int) -> NoReturn:
    """Raise `InputError` for a number of images, some of which are named."""
    more = f"\n  … and {number - len(faults)} more" if number > len(faults) else ""
    raise InputError(
        f"{number} images of DATA cannot be decoded; remove or mend them:\n  "
        + "\n  ".join(faults)
        + more
    )


def decode_chunk(
    sources: Sequence[Source], preprocess: Preprocess, images: Images, sizes: Sizes
) -> list[str]:
    """Fill images and sizes, and return what is wrong with those that cannot be decoded."""
    options = preprocess.decode_options("pillow", scaling=False)
    faults = []
    with Reader() as reader:
        for row, (name, place) in enumerate(sources):
            try:
                image = decode(reader.read(place), options)
            except ImageFault as fault:
                faults.append(f"{name}: {fault.status}, {fault.error}")
                continue
            except OSError as error:
                faults.append(f"{name}: {error.strerror}")
                continue
            images[row] = preprocess.apply(image.pixels)
            sizes[row] = image.width, image.height
    return faults
