"""The training loop: plain PyTorch, the same with one process and with many.

    for each epoch:
        order = permutation(seed, epoch)                 # the same on every worker
        for each global batch of the order:
            images = augment(batch)                      # drawn for the whole batch on every worker
            loss = cross_entropy(network(my share))      # rank r takes images r, r + world_size, …
            loss.backward()                              # DDP averages the gradients
            every optimizer steps; the moving average of the weights follows
        evaluate the averaged weights on the validation split

All randomness follows from (seed, epoch): a run restarted at an epoch is the run undisturbed.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cifar_ray.config.training import TrainingConfig
from cifar_ray.errors import CifarRayError
from cifar_ray.models.classifier import normalise
from cifar_ray.training.augment import augment, scale_to
from cifar_ray.training.dataset import LabelledImages
from cifar_ray.training.optimizer import build_optimizers, learning_rate_factor, set_learning_rate

EVALUATION_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together; alone it is rank 0 of 1."""

    rank: int = 0
    world_size: int = 1
    wrap: Callable[[nn.Module], nn.Module] = lambda network: network
    """Turns a network into one whose gradients are averaged over the processes (DDP)."""


@dataclass(frozen=True, slots=True)
class Step:
    """Progress within an epoch, for a display."""

    epoch: int
    step: int
    num_steps: int
    loss: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One row of `history.json`. `train_loss` is the mean over this rank's images."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float

    def as_dict(self) -> dict[str, float]:
        """Return the row as JSON has it."""
        return asdict(self)


class Trainer:
    """A network with its optimizers and moving average, trained epoch by epoch."""

    def __init__(
        self,
        config: TrainingConfig,
        network: nn.Module,
        statistics: tuple[tuple[float, ...], tuple[float, ...]],
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        """`statistics` are mean and standard deviation a channel, of pixels in [0, 1]."""
        self.config = config
        self.ranks = ranks
        self.device = device
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.wrapped = ranks.wrap(self.network)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.statistics = statistics
        self.optimizers = build_optimizers(self.network, config.optimizer)
        self.precision = torch.bfloat16 if use_bfloat16(config, device) else torch.float32

    @torch.no_grad()
    def initialise(self, images: Tensor) -> None:
        """Let a network that starts from data do so, with N×S×S×3 uint8 training images."""
        initialise = getattr(self.network, "initialise_from", None)
        if initialise is not None:
            initialise(normalise(images.to(self.device), *self.statistics))
            self.averaged.load_state_dict(self.network.state_dict())

    def learning_rate(self) -> float:
        """Return the learning rate of the last step."""
        rate: float = self.optimizers[0].param_groups[0]["lr"]
        return rate

    def train_epoch(
        self, epoch: int, data: LabelledImages, on_step: Callable[[Step], None]
    ) -> float:
        """Train one epoch (from 0) and return the mean loss."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        torch.manual_seed((self.config.seed * 1_000_003 + epoch) * 4099 + self.ranks.rank)
        order = torch.randperm(len(data), generator=generator)
        num_steps = self._num_steps(len(data))
        small = epoch < round(self.config.small_image_fraction * self.config.epochs)
        started = time.monotonic()
        losses = torch.zeros((), device=self.device)
        self.wrapped.train()
        for step in range(num_steps):
            indices = order[step * self.config.batch_size : (step + 1) * self.config.batch_size]
            self._set_learning_rate(epoch * num_steps + step, num_steps)
            images = augment(data.images[indices], indices, epoch, self.config.augment, generator)
            mine = slice(self.ranks.rank, None, self.ranks.world_size)
            loss = self._step(images[mine], data.labels[indices][mine], small)
            losses += loss
            seconds = time.monotonic() - started
            rate = (step + 1) * self.config.batch_size / seconds
            on_step(Step(epoch, step + 1, num_steps, float(loss), seconds, rate))
        mean_loss = float(losses / num_steps)
        if not math.isfinite(mean_loss):
            raise CifarRayError(
                f"The loss is no longer finite in epoch {epoch + 1}: training has diverged. Try a "
                "smaller --set optimizer.learning_rate, in a new --out."
            )
        return mean_loss

    def _num_steps(self, num_images: int) -> int:
        """Return the steps an epoch; a last batch too small for batch norm is left out."""
        full, rest = divmod(num_images, self.config.batch_size)
        return max(1, full + (rest >= 2 * self.ranks.world_size))

    def _set_learning_rate(self, step: int, steps_per_epoch: int) -> None:
        factor = learning_rate_factor(
            self.config.schedule, step, steps_per_epoch, self.config.epochs
        )
        set_learning_rate(self.optimizers, factor)

    def _step(self, images: Tensor, labels: Tensor, small: bool) -> Tensor:
        inputs = normalise(images, *self.statistics)
        if small and self.config.small_image_px:
            inputs = scale_to(inputs, self.config.small_image_px)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            logits = self.wrapped(inputs)
        loss = functional.cross_entropy(
            logits.float(), labels, label_smoothing=self.config.label_smoothing
        )
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self._average()
        return loss.detach()

    @torch.no_grad()
    def _average(self) -> None:
        decay = self.config.weight_average_decay
        current = self.network.state_dict()
        for name, value in self.averaged.state_dict().items():
            if value.is_floating_point() and decay:
                value.lerp_(current[name], 1 - decay)
            else:
                value.copy_(current[name])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16
        )

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the averaged weights' logits (N×C float32) for N×S×S×3 uint8 images."""
        self.averaged.eval()
        parts = []
        for batch in images.split(EVALUATION_BATCH):
            inputs = normalise(batch.to(self.device), *self.statistics)
            with self._autocast():
                parts.append(self.averaged(inputs.contiguous(memory_format=torch.channels_last)))
        return torch.cat(parts).float()


def use_bfloat16(config: TrainingConfig, device: torch.device) -> bool:
    """Tell whether to compute in bfloat16: as configured, else where the device is fast at it."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without these instructions bfloat16 is emulated and several times slower than float32.
    return bool(torch.cpu._is_avx512_bf16_supported())
