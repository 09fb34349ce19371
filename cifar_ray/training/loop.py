"""The training loop: plain PyTorch, the same with one process and with many.

    for each epoch:
        hold or release the trunk, where there is transfer
        for each batch of a permutation by (seed, epoch):    # the same on every rank
            loss = cross_entropy(network(my share))          # rank r: images r, r + world_size, …
            loss.backward()                                  # DDP averages the gradients
            every optimizer steps; the moving average of the weights follows
        validate the averaged weights                        # each rank a share; sums are exact

All randomness follows from (seed, epoch): a run restarted at an epoch is the run undisturbed.

Batch norm normalises by the rank's own share of a batch, as DDP does, and not by the whole batch:
with N ranks it sees batch_size / N images. After each epoch the running statistics are averaged
over the ranks, so that all of them evaluate, and any of them saves, the same network.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cifar_ray.config.training import TrainingConfig
from cifar_ray.errors import CifarRayError
from cifar_ray.models.classifier import normalise
from cifar_ray.models.transfer import head_of, hold_statistics, hold_trunk
from cifar_ray.training.augmentation.mixing import is_mixing
from cifar_ray.training.averaging import WeightAverage
from cifar_ray.training.batches import Batch, Batches, Statistics
from cifar_ray.training.data.dataset import LabelledImages
from cifar_ray.training.epoch import EpochRow as EpochRow
from cifar_ray.training.epoch import Step as Step
from cifar_ray.training.evaluation.views import mean_logits
from cifar_ray.training.optimizer import build_optimizers
from cifar_ray.training.schedule import learning_rate_factor, set_learning_rate

EVALUATION_PIXELS = 1000 * 32 * 32
STEP_INTERVAL_S = 0.2


def _keep(totals: Tensor) -> None:
    """Alone, a rank's sum is everybody's."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together; alone it is rank 0 of 1."""

    rank: int = 0
    world_size: int = 1
    wrap: Callable[[nn.Module], nn.Module] = lambda network: network
    """Turns a network into one whose gradients are averaged over the processes (DDP)."""
    add: Callable[[Tensor], object] = _keep
    """Replaces a tensor's values by their sums over the processes."""


class Trainer:
    """A network with its optimizers and moving average, trained epoch by epoch."""

    def __init__(
        self,
        config: TrainingConfig,
        network: nn.Module,
        statistics: Statistics,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        """`statistics` are mean and standard deviation a channel, of pixels in [0, 1]."""
        self.config = config
        self.ranks = ranks
        self.device = device
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.wrapped: nn.Module | None = None
        self.head = head_of(config.network, network)
        self.held: list[nn.Parameter] = []
        self.average = WeightAverage(self.network, config.weight_average_decay)
        self.statistics = statistics
        self.batches = Batches(config, statistics, ranks.rank, ranks.world_size)
        self.optimizers = build_optimizers(self.network, config.optimizer)
        self.precision = torch.bfloat16 if use_bfloat16(config, device) else torch.float32

    @property
    def averaged(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.average.network

    @torch.no_grad()
    def initialise(self, images: Tensor) -> None:
        """Let a network that starts from data do so, with N×S×S×3 uint8 training images."""
        initialise = getattr(self.network, "initialise_from", None)
        if initialise is not None:
            initialise(normalise(images.to(self.device), *self.statistics))
            self.average.restart()

    def learning_rate(self) -> float:
        """Return the first optimizer's current rate."""
        rate: float = self.optimizers[0].param_groups[0]["lr"]
        return rate

    def train_epoch(
        self,
        epoch: int,
        data: LabelledImages,
        on_step: Callable[[Step], None],
        history: Sequence[EpochRow] = (),
    ) -> tuple[float, float | None]:
        """Train one epoch (from 0, after those in `history`); return mean loss and accuracy.

        They are of the batches as they pass; the accuracy is None where images are mixed.
        """
        seed = self.config.seed * 1_000_003 + epoch
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed * 4099 + self.ranks.rank)
        network = self._ready(epoch)
        weights = self._class_weights(data)
        num_steps = self.batches.num_steps(len(data))
        started = told = time.monotonic()
        totals, num_images = torch.zeros(2, dtype=torch.float64, device=self.device), 0
        total_loss, num_right = totals
        for step, batch in enumerate(self.batches.epoch(epoch, data, generator)):
            factor = learning_rate_factor(self.config, epoch * num_steps + step, num_steps, history)
            set_learning_rate(self.optimizers, factor)
            loss, right = self._step(network, batch, weights)
            total_loss.add_(loss, alpha=len(batch.labels))
            num_right.add_(right)
            num_images += batch.num_images
            now = time.monotonic()
            # Reading the loss waits for the device; a display needs it now and then.
            if now - told >= STEP_INTERVAL_S or step + 1 == num_steps:
                told = now
                rate = (step + 1) * self.config.batch_size / (now - started)
                on_step(Step(epoch, step + 1, num_steps, float(loss), now - started, rate))
        self._share_statistics()
        self.ranks.add(totals)
        mean_loss, accuracy = (totals / num_images).tolist()
        if not math.isfinite(mean_loss):
            raise CifarRayError(
                f"The loss is no longer finite in epoch {epoch + 1}: training has diverged. Try a "
                "smaller --set optimizer.learning_rate, in a new --out."
            )
        return mean_loss, None if is_mixing(self.config.augment) else accuracy

    def validate(self, data: LabelledImages) -> tuple[float, float]:
        """Return mean loss and accuracy of the averaged weights, each rank summing a share."""
        mine = torch.arange(self.ranks.rank, len(data), self.ranks.world_size)
        logits = self.logits(data.take(mine))
        labels = data.labels[mine].to(logits.device)
        right = (logits.argmax(dim=1) == labels).sum()
        loss = functional.cross_entropy(logits.double(), labels, reduction="sum")
        totals = torch.stack([loss, right.double()])
        self.ranks.add(totals)
        return float(totals[0]) / len(data), float(totals[1]) / len(data)

    def _ready(self, epoch: int) -> nn.Module:
        """Hold or release the trunk as the epoch asks, and return the network in train mode."""
        hold = epoch < self.config.transfer.frozen_epochs
        if self.wrapped is None or hold != bool(self.held):
            for parameter in self.held:
                parameter.requires_grad_(True)
            self.held = hold_trunk(self.network, self.head) if hold else []
            # DDP averages the gradients of what could be trained when it was made.
            self.wrapped = self.ranks.wrap(self.network)
        self.wrapped.train()
        if hold:
            hold_statistics(self.network, self.head)
        return self.wrapped

    def _step(
        self, network: nn.Module, batch: Batch, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Train on a batch; return its mean loss, and how many images the network had right."""
        with self._autocast():
            logits = network(batch.inputs)
        logits = logits.float()
        loss = self._loss(logits, batch.labels, weights)
        if batch.mixed_in is not None:
            other = self._loss(logits, batch.mixed_in, weights)
            loss = batch.kept * loss + (1 - batch.kept) * other
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        # DDP takes the mean over the ranks, whose shares of a last batch may differ by an image.
        share = len(batch.labels) * self.ranks.world_size / batch.num_images
        (loss if share == 1 else loss * share).backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.follow()
        return loss.detach(), (logits.detach().argmax(dim=1) == batch.labels).sum()

    def _loss(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        smoothing = self.config.label_smoothing
        if weights is None:
            return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        # Weights have mean 1 over the dataset; the mean over a batch's weights would undo them.
        total = functional.cross_entropy(
            logits, labels, weights, reduction="sum", label_smoothing=smoothing
        )
        return total / len(labels)

    def _class_weights(self, data: LabelledImages) -> Tensor | None:
        if self.config.class_weights == "none":
            return None
        counts = torch.bincount(data.labels, minlength=len(data.label_names)).clamp_min(1)
        return (len(data) / (len(counts) * counts)).float().to(self.device)

    def _share_statistics(self) -> None:
        """Average batch norm's running statistics over the ranks."""
        if self.ranks.world_size == 1:
            return
        # In one order on every rank, as sums must be; the average may be the network itself.
        for network in dict.fromkeys((self.network, self.averaged)):
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    self.ranks.add(buffer)
                    buffer /= self.ranks.world_size

    @torch.no_grad()
    def estimate_statistics(self, images: Tensor) -> None:
        """Take batch norm's statistics of the averaged weights from N×S×S×3 uint8 images.

        Those that were averaged along with the weights are not those of the average.
        """
        norms = [
            m for m in self.averaged.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
        ]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over batches, each alike
            norm.train()
        for batch in images.split(self.config.batch_size):
            with self._autocast():
                self.averaged(normalise(batch.to(self.device), *self.statistics))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16
        )

    @torch.no_grad()
    def logits(self, images: Tensor, views: str = "none") -> Tensor:
        """Return the averaged weights' logits (N×C float32) for N×S×S×3 uint8 images.

        `views` are those of `test_time_augmentation`, over which logits are averaged.
        """
        self.averaged.eval()
        parts = []
        for batch in images.split(max(1, EVALUATION_PIXELS // images.shape[1] ** 2)):
            inputs = normalise(batch.to(self.device), *self.statistics)
            with self._autocast():
                parts.append(mean_logits(self.averaged, inputs, views))
        return torch.cat(parts).float()


def use_bfloat16(config: TrainingConfig, device: torch.device) -> bool:
    """Tell whether to compute in bfloat16: as configured, else where the device is fast at it."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without these instructions bfloat16 is emulated and several times slower than float32.
    return bool(torch.cpu._is_avx512_bf16_supported())
