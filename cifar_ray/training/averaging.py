"""The moving average of a network's weights, which generalises better than the last ones."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """A network that follows another by a decay a step; the other itself where the decay is 0."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False) if decay else network
        own, current = self.network.state_dict(), network.state_dict()
        # References: both networks' tensors are only ever changed in place.
        self._floats = _pairs(own, current, [k for k in own if own[k].is_floating_point()])
        self._others = _pairs(own, current, [k for k in own if not own[k].is_floating_point()])

    @torch.no_grad()
    def follow(self) -> None:
        """Take a step towards the network."""
        if not self.decay:
            return
        torch._foreach_lerp_(*self._floats, 1 - self.decay)
        for own, current in zip(*self._others, strict=True):
            own.copy_(current)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again from the network as it is."""
        for pairs in (self._floats, self._others):
            for own, current in zip(*pairs, strict=True):
                own.copy_(current)


def _pairs(
    own: dict[str, Tensor], current: dict[str, Tensor], names: list[str]
) -> tuple[list[Tensor], list[Tensor]]:
    return [own[name] for name in names], [current[name] for name in names]
