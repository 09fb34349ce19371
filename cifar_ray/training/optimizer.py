"""Optimizers."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from cifar_ray.config.optimization import OptimizerConfig


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for convolution filters that stand before a normalisation.

    K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): the
    momentum of each filter bank, seen as an out × (in·k·k) matrix, is replaced by the nearest
    semi-orthogonal matrix. Filters are kept at the norm √out; the normalisation after them makes
    their scale meaningless, and so the learning rate is the angle of a step.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Do one step; `closure` is not used."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight.grad)
                momentum = state["momentum"]
                momentum.mul_(group["momentum"]).add_(weight.grad)
                direction = weight.grad.add(momentum, alpha=group["momentum"])
                weight.mul_(math.sqrt(len(weight)) / weight.norm())
                update = orthogonalise(direction.flatten(1)).view_as(weight)
                weight.add_(update, alpha=-group["lr"])


def orthogonalise(matrix: Tensor, steps: int = 4) -> Tensor:
    """Bring the singular values of a matrix near 1 by a quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = len(matrix) <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x if wide else x.T
    return result


def build_optimizers(network: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Return the optimizers of a network's trainable parameters: one, or two with `muon`."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    # Fused: one call a step instead of several a parameter, which is most of a small step's time.
    match config.name:
        case "adam":
            return [torch.optim.Adam(trainable, lr=rate, weight_decay=decay, fused=True)]
        case "adamw":
            return [torch.optim.AdamW(trainable, lr=rate, weight_decay=decay, fused=True)]
        case "sgd":
            return [
                torch.optim.SGD(
                    trainable,
                    lr=rate,
                    momentum=config.momentum,
                    weight_decay=decay,
                    nesterov=config.momentum > 0,
                    fused=True,
                )
            ]
        case "muon":
            return _muon_and_adamw(trainable, config)


def _muon_and_adamw(
    trainable: list[nn.Parameter], config: OptimizerConfig
) -> list[torch.optim.Optimizer]:
    assert config.other_learning_rate is not None, "checked by OptimizerConfig"
    filters = [p for p in trainable if p.ndim == 4]
    others = [p for p in trainable if p.ndim != 4]
    adam = torch.optim.AdamW(
        others,
        lr=config.other_learning_rate,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
    )
    return [Muon(filters, lr=config.learning_rate, momentum=config.momentum), adam]
