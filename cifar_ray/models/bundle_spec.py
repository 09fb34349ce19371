"""What `bundle.json` holds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from cifar_ray.images.labels import check_labels
from cifar_ray.images.preprocess import Preprocess

FORMAT_VERSION: Literal[1] = 1

Range = tuple[int, int]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EnergyQuantiles(_Frozen):
    """Quantiles of logsumexp(logits) over validation images."""

    q01: float
    q05: float
    q50: float


class TrainedOn(_Frozen):
    """What the weights have seen; None where nobody told."""

    dataset: str
    description: str = ""
    num_images: int | None = None
    image_width: Range | None = None
    """Smallest and largest, in pixels."""
    image_height: Range | None = None
    recipe: str | None = None
    seconds: float | None = None
    command: str | None = None
    """Trains it again."""
    energy: EnergyQuantiles | None = None
    """In bundles made earlier. It tells unlike images apart only from a network that was trained
    without label smoothing; labelling looks at confidence instead."""


class BundleSpec(_Frozen):
    """What the maker of a bundle states."""

    network: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    trained_on: TrainedOn
    temperature: float | None = Field(None, gt=0)
    """Divides the logits, so that confidences are calibrated; None where it was not fitted."""
    metrics: dict[str, JsonValue] = {}
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    """How filters and matrices are stored; vectors are float32, and so are all when loaded."""

    @field_validator("labels")
    @classmethod
    def _labels_serve(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_labels(labels, "the bundle"))


class SelfTestCase(_Frozen):
    """A drawn image and what the network made of it when the bundle was made."""

    image: str
    """PNG bytes in base64."""
    probabilities: tuple[float, ...]
    """Softmax of the float32 logits, without temperature."""


class BundleRecord(BundleSpec):
    """What `bundle.json` holds besides its own digest."""

    format_version: Literal[1] = FORMAT_VERSION
    created_by: str
    """Version of this project."""
    model_sha256: str
    self_test: tuple[SelfTestCase, ...]
