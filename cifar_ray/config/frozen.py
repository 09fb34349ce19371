"""The base of what says what a run is: frozen, and without fields that nobody knows."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class FrozenConfig(BaseModel):
    """A config that cannot be changed, and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def flat(self) -> dict[str, Any]:
        """Return all values by the full names of their fields, such as `augment.flip`."""
        return dict(_flat(self.model_dump()))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
