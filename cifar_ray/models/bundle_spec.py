"""What `bundle.json` holds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from cifar_ray.images.labels import check_labels
from cifar_ray.images.preprocess import Preprocess

FORMAT_VERSION: Literal[1] = 1

MOST_BY_CHANCE = 0.4

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


class Comparison(_Frozen):
    """What became of labels when a bundle was made to compute in int8; shares of 1."""

    num_images: int
    """Others than those that the ranges were measured on."""
    agreement: float
    """Of the top label with that of the float32 network on images decoded in full."""
    shuffled_agreement: float
    """The same after the images were shuffled: what chance would give."""
    near_ties: float
    """Images whose two best labels differ by less than 0.02 in float32."""
    largest_difference: float
    """Of a label's confidence."""

    @property
    def tells_little(self) -> bool:
        """Whether chance comes so near, by one label on most images, that agreement is no proof."""
        return self.shuffled_agreement > MOST_BY_CHANCE


class Int8Record(_Frozen):
    """The int8 graph of a bundle, and how it was made."""

    graph_sha256: str
    weights_sha256: str
    nncf: str
    """The version that made it."""
    num_calibration_images: int
    """That the ranges of activations were measured on."""
    source: str
    """Where they came from."""
    comparison: Comparison
    self_test: tuple[tuple[float, ...], ...]
    """What the graph makes of the bundle's own self-test images."""


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
    int8: Int8Record | None = None
    """Where `quantize` made one: the graph that labels in int8 lies beside the weights."""

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
