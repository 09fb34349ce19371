"""The base of what says what a run is: frozen, and without fields that nobody knows."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class FrozenConfig(BaseModel):
    """A config that cannot be changed, and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
