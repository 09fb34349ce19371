"""Training images that neither memory nor disk has room for: read and decoded anew in each epoch.

An epoch visits the blocks of DATA (a file, the members that lie within 4 MiB of a tar shard, a row
group of Parquet) in a permutation. Each rank reads a part of it, of as many images as it takes in
the epoch, and draws its batches from a buffer into which images come in the order of reading. All
of it follows from (seed, epoch, rank), so that a run that goes on is the run undisturbed.

What the shuffle is worth: docs/training-data.md.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifar_ray.errors import InputError
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.training.data.bucket import StoredFile, TarMember
from cifar_ray.training.data.dataset import LabelledImages, Statistics, of_moments
from cifar_ray.training.data.decoded import (
    STORED_CHUNK,
    STORED_READERS,
    Images,
    Sizes,
    decode_chunk,
)
from cifar_ray.training.data.reading import ParquetRow, Place, Reader, Source

BLOCK_BYTES = 4 * 2**20
"""Of a tar shard, which is one block while that much of it is read at once."""
CHUNK = 32
"""Images that a thread decodes at a time."""


Slots = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Images that are decoded: their numbers in DATA, N×S×S×3 uint8, and N×2 sizes, 0 if broken."""

    numbers: Tensor
    images: Images
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class Catalog:
    """All images of DATA: where they lie, and what was found when each was looked at once."""

    sources: Sequence[Source]
    preprocess: Preprocess
    blocks: Tensor
    """The block of each image, ascending."""
    digests: Tensor
    """N×16 uint8, of the pixels as a network sees them."""
    sizes: Tensor
    """N×2 int64, before preprocess."""
    sums: Tensor
    """N×6 int64: sums of the values of red, green, blue, and of their squares."""

    def decode(self, numbers: Tensor) -> Generator[Chunk, None, None]:
        """Decode images in the order of their numbers.

        Raises `InputError` for one that is not what it was when it was looked at.
        """
        with closing(decode_in_order(self.sources, numbers, self.preprocess)) as chunks:
            for chunk in chunks:
                as_found = self.sizes[chunk.numbers].numpy()
                changed = chunk.numbers[(chunk.sizes != as_found).any(axis=1)]
                if len(changed):
                    raise InputError(
                        f"{self.sources[int(changed[0])][0]} of DATA was changed or taken away"
                        " since training looked at it. Restore it, or train in a new --out."
                    )
                yield chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedImages(LabelledImages):
    """Images of a catalog, of which `rows` are meant. `images` is empty and tells their shape."""

    catalog: Catalog
    buffer_images: int
    """So many are held decoded, of which batches are drawn."""

    def take(self, indices: Tensor) -> Tensor:
        """Return the images at `indices`, read and decoded now; ascending ones are read fastest."""
        side = self.images.shape[1]
        images = torch.empty(len(indices), side, side, 3, dtype=torch.uint8)
        done = 0
        for chunk in self.catalog.decode(self._numbers(indices)):
            images[done : done + len(chunk.numbers)] = torch.from_numpy(chunk.images)
            done += len(chunk.numbers)
        return images.to(self.labels.device)

    def select(self, indices: Tensor) -> LabelledImages:
        """Return the images at `indices` in memory; `InputError` if it has no room for them."""
        needed = len(indices) * self.images.shape[1] ** 2 * 3
        if needed > psutil.virtual_memory().available // 2:
            raise InputError(
                f"The {len(indices):,} images that are held out of DATA are kept in memory, decoded"
                f", which needs {needed / 2**30:.1f} GiB. Take fewer: --set"
                " splits.num_validation_images=5000, or --set test_fraction=0."
            )
        return LabelledImages(
            self.take(indices), self.labels[indices], self.label_names, self.size_range
        )

    def view(self, indices: Tensor) -> "StreamedImages":
        """Return the images at `indices`, which stay where they are."""
        return replace(self, labels=self.labels[indices], rows=self._numbers(indices))

    def statistics(self) -> Statistics:
        """Return mean and standard deviation a channel, of pixels in [0, 1]."""
        sums = self.catalog.sums[self._numbers(torch.arange(len(self)))].sum(dim=0).double()
        mean, of_squares = (sums / (len(self) * self.images.shape[1] ** 2)).view(2, 3)
        return of_moments(mean / 255, of_squares / 255**2)

    def digests(self) -> list[bytes]:
        """Return a digest of each image's pixels."""
        digests = self.catalog.digests[self._numbers(torch.arange(len(self)))].numpy()
        return [digest.tobytes() for digest in digests]

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the indices of all images as an epoch reads them."""
        blocks = self.catalog.blocks[self._numbers(torch.arange(len(self)))]
        if not len(blocks):
            return blocks
        place = torch.randperm(int(blocks[-1]) + 1, generator=generator)
        return place[blocks].argsort(stable=True)

    def shuffled(
        self, indices: Tensor, sizes: Sequence[int], generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of `sizes`, in all as many images as are read in the order of `indices`.

        A batch is its images (N×S×S×3 uint8) and their indices.
        """
        buffer = _Buffer(self, indices, max([self.buffer_images, *sizes]))
        with buffer.chunks:
            yield from (buffer.draw(size, generator) for size in sizes)

    def _numbers(self, indices: Tensor) -> Tensor:
        return indices if self.rows is None else self.rows[indices]


class _Buffer:
    """Decoded images, from which a batch takes any and into whose places the next ones come.

    In NumPy, since PyTorch shares out even small copies over threads, which waits for each of them.
    """

    def __init__(self, data: StreamedImages, indices: Tensor, capacity: int) -> None:
        self.indices = indices.numpy()
        self.chunks = _Ahead(data.catalog.decode(data._numbers(indices)))
        self.chunk: Images | None = None
        self.num_read = self.at = 0
        self.live = np.arange(min(capacity, len(indices)))
        side = data.images.shape[1]
        self.images = np.empty((len(self.live), side, side, 3), np.uint8)
        self.which = np.empty(len(self.live), np.int64)
        self.is_filled = False

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if not self.is_filled:
            self.is_filled = True
            self._pour(self.live)
        slots = self.live[torch.randperm(len(self.live), generator=generator)[:size].numpy()]
        drawn = torch.from_numpy(self.images[slots]), torch.from_numpy(self.which[slots])
        empty = slots[self._pour(slots) :]
        if len(empty):
            self.live = self.live[~np.isin(self.live, empty)]
        return drawn

    def _pour(self, slots: Slots) -> int:
        """Let the next images into slots; return how many there were."""
        done = 0
        while done < len(slots):
            if self.chunk is None or self.at == len(self.chunk):
                self.chunk, self.at = self.chunks.next_images(), 0
                if self.chunk is None:
                    break
            number = min(len(slots) - done, len(self.chunk) - self.at)
            into = slots[done : done + number]
            self.images[into] = self.chunk[self.at : self.at + number]
            self.which[into] = self.indices[self.num_read : self.num_read + number]
            self.at, self.num_read, done = self.at + number, self.num_read + number, done + number
        return done


class _Ahead:
    """Takes chunks from an iterator in a thread, one before it is asked for."""

    def __init__(self, chunks: Generator[Chunk, None, None]) -> None:
        self.chunks = chunks
        self.thread = ThreadPoolExecutor(1)
        self.coming = self.thread.submit(next, chunks, None)

    def __enter__(self) -> "_Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown()
        self.chunks.close()

    def next_images(self) -> Images | None:
        chunk = self.coming.result()
        if chunk is None:
            return None
        self.coming = self.thread.submit(next, self.chunks, None)
        return chunk.images


def decode_in_order(
    sources: Sequence[Source], numbers: Tensor, preprocess: Preprocess
) -> Generator[Chunk, None, None]:
    """Decode and preprocess images in threads, and yield them in the order of `numbers`.

    Files and members of archives are read by the threads; rows of Parquet, which can only be read
    forwards, by whoever asks.
    """
    stored = len(numbers) > 0 and _is_stored(sources[int(numbers[0])][1])
    size, num_threads = (
        (STORED_CHUNK, STORED_READERS) if stored else (CHUNK, max(2, torch.get_num_threads()))
    )
    side = preprocess.input_size

    def decode(part: Tensor, chosen: Sequence[Source]) -> Chunk:
        images = np.zeros((len(part), side, side, 3), np.uint8)
        sizes = np.zeros((len(part), 2), np.int64)
        decode_chunk(chosen, preprocess, images, sizes)
        return Chunk(part, images, sizes)

    with ThreadPoolExecutor(num_threads) as pool, Reader() as reader:
        coming: deque[Future[Chunk]] = deque()
        for part in numbers.split(size) if len(numbers) else ():
            chosen = [sources[number] for number in part.tolist()]
            chosen = [
                (name, reader.read(place) if isinstance(place, ParquetRow) else place)
                for name, place in chosen
            ]
            coming.append(pool.submit(decode, part, chosen))
            if len(coming) > 2 * num_threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def blocks_of(places: Iterator[Place]) -> Tensor:
    """Return the number of the block that each image is in."""
    numbers: list[int] = []
    block, start, before = -1, 0, None
    for place in places:
        goes_on = (
            (isinstance(place, TarMember) and isinstance(before, TarMember))
            and place.file is before.file
            and place.offset + place.size_bytes - start <= BLOCK_BYTES
        ) or (
            (isinstance(place, ParquetRow) and isinstance(before, ParquetRow))
            and (place.file is before.file and place.row_group == before.row_group)
        )
        if not goes_on:
            block += 1
            start = place.offset if isinstance(place, TarMember) else 0
        numbers.append(block)
        before = place
    return torch.tensor(numbers, dtype=torch.int64)


def _is_stored(place: Place) -> bool:
    file = place.file if isinstance(place, TarMember) else place
    return isinstance(file, StoredFile)
