"""The batches of an epoch: order, augmentation, normalisation, and a rank's share of each.

All randomness is drawn for whole batches and follows from (seed, epoch), so that every rank draws
the same, and any number of ranks trains on the same batches. Where batches are small, several are
augmented at once, which costs a step far less than one call of each operation.

Of images that are streamed, a rank knows its own share alone: what it draws follows from (seed,
epoch, rank), and another number of ranks trains on other batches of the same size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cifar_ray.config.training import TrainingConfig
from cifar_ray.models.classifier import normalise
from cifar_ray.training.augmentation.augment import augment, scale_to
from cifar_ray.training.augmentation.mixing import draw_mix, is_mixing
from cifar_ray.training.data.dataset import LabelledImages
from cifar_ray.training.data.streaming import StreamedImages

CHUNK_PIXELS = 512 * 32 * 32
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation a channel, of pixels in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A rank's share of a batch: normalised N×3×S×S float32 channels_last, and N labels."""

    inputs: Tensor
    labels: Tensor
    num_images: int
    """Of the whole batch, over all ranks."""
    mixed_in: Tensor | None = None
    """Labels of the images that were mixed in, where there are any."""
    kept: float = 1.0
    """Share of an image that is its own."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Makes the batches of a run, for one rank of `world_size`."""

    config: TrainingConfig
    statistics: Statistics
    rank: int
    world_size: int

    def num_steps(self, num_images: int) -> int:
        """Return the steps an epoch; a last batch too small for batch norm is left out."""
        full, rest = divmod(num_images, self.config.batch_size)
        return max(1, full + (rest >= 2 * self.world_size))

    def epoch(
        self, epoch: int, data: LabelledImages, generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch (from 0), shuffled and augmented by the generator."""
        if isinstance(data, StreamedImages):
            yield from self._streamed(epoch, data, generator)
            return
        order = torch.randperm(len(data), generator=generator)
        order = order[: self.num_steps(len(data)) * self.config.batch_size]
        side = data.images.shape[1]
        batches_at_once = max(1, CHUNK_PIXELS // (side * side * self.config.batch_size))
        for indices in order.split(self.config.batch_size * batches_at_once):
            yield from self._chunk(epoch, data, indices, generator)

    def _chunk(
        self, epoch: int, data: LabelledImages, indices: Tensor, generator: torch.Generator
    ) -> Iterator[Batch]:
        images = augment(data.take(indices), indices, epoch, self.config.augment, generator)
        labels = data.labels[indices]
        places = torch.arange(len(indices)).split(self.config.batch_size)
        shares = [batch[self.rank :: self.world_size] for batch in places]
        mine = torch.cat(shares)
        alone = self.world_size == 1
        inputs = self._inputs(images if alone else images[mine], epoch)
        parts = zip(
            places,
            inputs.split([len(share) for share in shares]),
            (labels if alone else labels[mine]).split([len(share) for share in shares]),
            strict=True,
        )
        for batch, part, of_part in parts:
            if is_mixing(self.config.augment):
                mix = draw_mix(self.config.augment, len(batch), part.shape[-1], generator)
                others = batch[mix.partners[self.rank :: self.world_size]]
                mixed = mix.apply(part, self._inputs(images[others], epoch))
                yield Batch(mixed, of_part, len(batch), labels[others], mix.kept)
            else:
                yield Batch(part, of_part, len(batch))

    def _streamed(
        self, epoch: int, data: StreamedImages, generator: torch.Generator
    ) -> Iterator[Batch]:
        """Yield batches of which each rank reads and augments its own share, and no other."""
        order = data.order(generator)[: self.num_steps(len(data)) * self.config.batch_size]
        sizes = [len(batch) for batch in order.split(self.config.batch_size)]
        shares = [
            [len(range(rank, size, self.world_size)) for size in sizes]
            for rank in range(self.world_size)
        ]
        mine = order.split([sum(of_rank) for of_rank in shares])[self.rank]
        own = torch.Generator().manual_seed(
            int(torch.randint(2**62, (1,), generator=generator)) + self.rank
        )
        batches = data.shuffled(mine, shares[self.rank], own)
        for size, (images, indices) in zip(sizes, batches, strict=True):
            labels = data.labels[indices]
            images = images.to(labels.device)
            inputs = self._inputs(augment(images, indices, epoch, self.config.augment, own), epoch)
            if is_mixing(self.config.augment):
                mix = draw_mix(self.config.augment, len(labels), inputs.shape[-1], own)
                mixed = mix.apply(inputs, inputs[mix.partners])
                yield Batch(mixed, labels, size, labels[mix.partners], mix.kept)
            else:
                yield Batch(inputs, labels, size)

    def _inputs(self, images: Tensor, epoch: int) -> Tensor:
        inputs = normalise(images, *self.statistics)
        small = epoch < round(self.config.small_image_fraction * self.config.epochs)
        if small and self.config.small_image_px:
            inputs = scale_to(inputs, self.config.small_image_px)
        return inputs.contiguous(memory_format=torch.channels_last)
