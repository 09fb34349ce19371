"""What the service says, as JSON; OpenAPI describes it from here."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

OK = "ok"
LABELLED: dict[str, Any] = {
    "status": "ok",
    "error": None,
    "width": 640,
    "height": 480,
    "label": "frog",
    "label_id": 6,
    "confidence": 0.93,
    "top": [
        {"label": "frog", "label_id": 6, "score": 0.93},
        {"label": "bird", "label_id": 2, "score": 0.04},
    ],
    "explanation": None,
}
BROKEN: dict[str, Any] = {
    "status": "truncated",
    "error": "the file ends before its image does",
    "width": None,
    "height": None,
    "label": None,
    "label_id": None,
    "confidence": None,
    "top": [],
    "explanation": None,
}


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Score(_Answer):
    """A class and the probability that the model gives it."""

    label: str
    label_id: int
    score: float


class Labelled(_Answer):
    """What became of one image, whatever it is."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [LABELLED, BROKEN]})

    status: str = Field(
        description="`ok`, or why there is no label: `not_an_image`, `truncated`, …"
    )
    error: str | None = Field(None, description="What is wrong with the image, in a sentence.")
    width: int | None = Field(None, description="Pixels, as the image is meant to be looked at.")
    height: int | None = None
    label: str | None = None
    label_id: int | None = None
    confidence: float | None = Field(
        None, description="Calibrated probability of `label`; null if the model is not calibrated."
    )
    top: list[Score] = Field([], description="The most probable classes, best first.")
    explanation: str | None = Field(
        None, description="With `explain=true`: a PNG as a data URL, the evidence laid over it."
    )


class Prediction(_Answer):
    """The answer to a request: a result an image, in the order in which they came."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [{"model": "speednet-2m-7960bf83d199", "results": [LABELLED, BROKEN]}]
        },
    )

    model: str = Field(description="The bundle's id, as in the rows of `cifar-ray predict`.")
    results: list[Labelled]


class ModelInfo(_Answer):
    """One model that the service has."""

    id: str
    network: str
    labels: list[str]
    input_size: int = Field(description="Side of the square that the network sees, in pixels.")
    calibrated: bool
    trained_on: str
    description: str
    precision: str
    accuracy: float | None = Field(description="On test images, as its bundle states.")


class LimitsInfo(_Answer):
    """What a request may bring."""

    image_bytes: int
    request_bytes: int
    images: int
    pixels: int
    request_s: float


class Models(_Answer):
    """The models by name, and what requests may bring."""

    default: str
    models: dict[str, ModelInfo]
    limits: LimitsInfo
    urls: bool = Field(description="Whether images may be named by URL.")


class ProblemDetail(_Answer):
    """Why a request was not answered."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [{"code": "too_large", "message": "An image may have 16 MiB."}]
        },
    )

    code: str = Field(description="For programs.")
    message: str = Field(description="For people.")


class Health(_Answer):
    """A sign of life."""

    status: str
