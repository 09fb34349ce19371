"""What `plan` says of a run before it begins, kept in DEST, and held against what came of it."""

from datetime import UTC, datetime

from pydantic import Field, ValidationError

import cifar_ray
from cifar_ray.config.frozen import FrozenConfig
from cifar_ray.config.labelling import BundleReference, RunRecord
from cifar_ray.errors import InputError, printable
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import Store

FORECAST_FORMAT = 1


class Estimate(FrozenConfig):
    """A number with its 90 % interval; the three are equal where the listing tells it exactly."""

    low: float
    expected: float
    high: float

    @classmethod
    def exact(cls, value: float) -> "Estimate":
        """Return a number that is known."""
        return cls(low=value, expected=value, high=value)

    @classmethod
    def around(cls, expected: float, half: float) -> "Estimate":
        """Return an interval that is as wide to both sides, but nothing is below zero."""
        return cls(low=max(0.0, expected - half), expected=expected, high=expected + half)

    def times(self, factor: float) -> "Estimate":
        """Return it in another unit."""
        return Estimate(
            low=self.low * factor, expected=self.expected * factor, high=self.high * factor
        )

    def plus(self, constant: float) -> "Estimate":
        """Return it with something that is known."""
        return Estimate(
            low=self.low + constant, expected=self.expected + constant, high=self.high + constant
        )


class Forecast(FrozenConfig):
    """`forecast.json`."""

    format_version: int = FORECAST_FORMAT
    code_version: str = cifar_ray.__version__
    created_at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    source: str
    bundle: BundleReference
    device: str
    workers: int
    sample: int
    """Images that were measured."""
    measured_side_by_side: int
    """Workers that measured at the same time, on this machine."""
    rounds: int
    found: int
    skipped: dict[str, int]
    listed: int
    parts: int
    requests: dict[str, int]
    """By kind; nothing where no bucket is concerned."""
    read_bytes: Estimate
    written_bytes: Estimate
    stage_cpu_seconds: dict[str, float]
    cpu_hours: Estimate
    """Used by driver and workers."""
    hours: Estimate
    """From the start of the workers to the receipt."""
    gpu_hours: Estimate | None
    """That workers have a GPU for; None where none is used."""
    money: Estimate | None
    currency: str | None
    deadline_hours: float | None
    workers_for_deadline: int | None
    """None where no number of them meets it, or no deadline is given."""

    def to_bytes(self) -> bytes:
        """Return the file."""
        return (self.model_dump_json(indent=2) + "\n").encode()


class Compared(FrozenConfig):
    """What was expected, and what it was."""

    low: float
    expected: float
    high: float
    actual: float


def read_forecast(store: Store) -> Forecast | None:
    """Return the forecast that DEST keeps; `InputError` for one that is damaged."""
    try:
        data = store.read(LabellingRun.FORECAST)
    except FileNotFoundError:
        return None
    try:
        return Forecast.model_validate_json(data)
    except ValidationError as error:
        raise InputError(
            f"{printable(store.uri)}/{LabellingRun.FORECAST} was not written by this version of "
            "cifar-ray, or is damaged. Delete it, or plan again."
        ) from error


def compare(
    forecast: Forecast | None, record: RunRecord, actual: dict[str, float]
) -> dict[str, Compared] | None:
    """Return forecast and truth by quantity; None without a forecast of this very run."""
    if forecast is None or record.config.partial:
        return None
    there = (forecast.source, forecast.bundle.digest, forecast.device)
    if there != (record.source.uri, record.bundle.digest, record.execution.device):
        return None
    expected = {
        "images": Estimate.exact(forecast.listed),
        "parts": Estimate.exact(forecast.parts),
        "read_bytes": forecast.read_bytes,
        "cpu_hours": forecast.cpu_hours,
        "hours": forecast.hours,
    }
    return {
        name: Compared(**expected[name].model_dump(), actual=value)
        for name, value in actual.items()
    }
