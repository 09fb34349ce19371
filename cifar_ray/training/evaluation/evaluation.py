"""What one model made of held-out images."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from cifar_ray.models.bundle import Bundle
from cifar_ray.training.evaluation.held_out import HeldOut
from cifar_ray.training.evaluation.metrics import Labels, Logits


@dataclass(frozen=True)
class Evaluation:
    """A model's logits (N×C) for held-out images, and what became of them."""

    name: str
    """What the page calls the model."""
    bundle: Bundle
    held_out: HeldOut
    logits: Logits
    metrics: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    """Of its training, a row an epoch, where that is known."""

    @cached_property
    def predicted(self) -> Labels:
        """The first choice for each image."""
        predicted: Labels = self.logits.argmax(axis=1)
        return predicted

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """N×C, calibrated where the bundle is."""
        return self._softmax(self.bundle.spec.temperature or 1.0)

    @cached_property
    def uncalibrated(self) -> NDArray[np.float64]:
        """N×C, as if there was no temperature."""
        return self._softmax(1.0)

    def _softmax(self, temperature: float) -> NDArray[np.float64]:
        result: NDArray[np.float64] = softmax(self.logits.astype(np.float64) / temperature, axis=1)
        return result
