"""What a search may give a field: one of some values, or a number of a range."""

import math
from itertools import pairwise
from random import Random
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from cifar_ray.config.frozen import FrozenConfig

RESAMPLE_PROBABILITY = 0.25
PERTURBATION_FACTORS = (0.8, 1.2)
"""M. Jaderberg et al., "Population Based Training of Neural Networks" (arXiv:1711.09846)."""
RANGES = ("uniform", "log_uniform", "int_uniform", "log_int_uniform")


class Choice(FrozenConfig):
    """One of some values, in an order in which neighbours are alike."""

    kind: Literal["choice"] = "choice"
    values: tuple[JsonValue, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _values_differ(self) -> "Choice":
        if any(value in self.values[:at] for at, value in enumerate(self.values)):
            raise ValueError("a value stands there twice")
        return self

    def sample(self, rng: Random) -> JsonValue:
        """Draw a value."""
        return rng.choice(self.values)

    def grid(self) -> list[JsonValue]:
        """Return all values."""
        return list(self.values)

    def probes(self) -> list[JsonValue]:
        """Return the values that a config must be able to hold."""
        return list(self.values)

    def explore(self, value: JsonValue, rng: Random) -> JsonValue:
        """Return a neighbour of a value, or now and then any value."""
        if rng.random() < RESAMPLE_PROBABILITY or value not in self.values:
            return self.sample(rng)
        at = self.values.index(value) + rng.choice((-1, 1))
        return self.values[min(max(at, 0), len(self.values) - 1)]


class Range(FrozenConfig):
    """A number from `low` to `high`, both included."""

    kind: Literal["uniform", "log_uniform", "int_uniform", "log_int_uniform"]
    low: float
    high: float
    steps: int | None = Field(None, ge=2)
    """Number of values that a grid takes of it, evenly spaced."""

    @model_validator(mode="after")
    def _rises(self) -> "Range":
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError("the first number must be finite and below the second")
        if self.is_log and self.low <= 0:
            raise ValueError("a logarithmic range must begin above 0")
        if self.is_integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("it needs whole numbers")
        return self

    @property
    def is_log(self) -> bool:
        """Whether numbers are spread evenly over their logarithms."""
        return self.kind in ("log_uniform", "log_int_uniform")

    @property
    def is_integer(self) -> bool:
        """Whether numbers are whole."""
        return self.kind in ("int_uniform", "log_int_uniform")

    def sample(self, rng: Random) -> float | int:
        """Draw a number."""
        return self._at(rng.random())

    def grid(self) -> list[float | int]:
        """Return `steps` numbers from end to end; equal whole ones count once."""
        assert self.steps is not None, "checked by Space.grid"
        numbers = [self._at(step / (self.steps - 1)) for step in range(self.steps)]
        return [numbers[0], *(later for earlier, later in pairwise(numbers) if later != earlier)]

    def probes(self) -> list[float | int]:
        """Return the values that a config must be able to hold."""
        return [self._number(self.low), self._number(self.high)]

    def explore(self, value: JsonValue, rng: Random) -> float | int:
        """Return a somewhat smaller or larger number, or now and then any of the range."""
        if rng.random() < RESAMPLE_PROBABILITY or not isinstance(value, int | float):
            return self.sample(rng)
        return self._number(value * rng.choice(PERTURBATION_FACTORS))

    def _at(self, share: float) -> float | int:
        if self.is_log:
            return self._number(self.low * (self.high / self.low) ** share)
        return self._number(self.low + (self.high - self.low) * share)

    def _number(self, value: float) -> float | int:
        inside = min(max(value, self.low), self.high)
        return round(inside) if self.is_integer else inside


Distribution = Choice | Range
