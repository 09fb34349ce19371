"""A network with its normalisation: uint8 images in, logits and features out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Map N×H×W×3 uint8 to N×3×H×W float32, by torchvision's arithmetic: (x / 255 − mean) / std.

    The result lies in memory as the input does, which torch calls channels_last.
    """
    mean_ = torch.tensor(mean, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    std_ = torch.tensor(std, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(255).sub_(mean_).div_(std_)


class Classifier(nn.Module):
    """Normalisation and network; what runs is `network` in the precision of its weights.

    Used by one thread at a time.
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = tuple(mean), tuple(std)
        self.head = last_linear(network)

    def forward(self, images: Tensor) -> Tensor:
        """Map N×H×W×3 uint8 to N×C float32 logits."""
        inputs = normalise(images, self.mean, self.std)
        logits: Tensor = self.network(inputs.to(self._dtype()))
        return logits.float()

    def logits_and_features(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return logits and the input of the last `nn.Linear` (N×D float32).

        Features are None where the network ends in something else.
        """
        if self.head is None:
            return self(images), None
        inputs: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        try:
            logits = self(images)
        finally:
            hook.remove()
        return logits, inputs[0].float()

    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype


def last_linear(network: nn.Module) -> nn.Linear | None:
    """Return the last layer with weights, if it is linear: it makes the logits."""
    with_weights = [
        module for module in network.modules() if next(module.parameters(False), None) is not None
    ]
    last = with_weights[-1] if with_weights else None
    return last if isinstance(last, nn.Linear) else None
