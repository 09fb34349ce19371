"""What training tells as it goes: steps for a display, and a row of history an epoch."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """Progress within an epoch, for a display."""

    epoch: int
    step: int
    num_steps: int
    loss: float
    """Of this rank's share of the step's images."""
    seconds: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One row of `history.json`; losses and accuracy are over the images of all ranks."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float
    train_accuracy: float | None = None
    """Of the batches as they pass; None where images are mixed, since those have two labels."""

    def as_dict(self) -> dict[str, float]:
        """Return the row as JSON has it, without what there is none of."""
        return {name: value for name, value in asdict(self).items() if value is not None}
