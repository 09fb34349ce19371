"""The one file that travels to a cluster: what a job shall do, as its own command line would."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
    field_serializer,
    field_validator,
)

from cifar_ray import __version__
from cifar_ray.config.execution import REFERENCE, ExecutionRequest
from cifar_ray.config.frozen import FrozenConfig
from cifar_ray.config.labelling import LabellingConfig, RunOptions
from cifar_ray.config.search import SearchSpec
from cifar_ray.config.training import TrainingConfig
from cifar_ray.errors import InputError, printable

SPEC_NAME = "spec.json"
DIGEST_CHARACTERS = 12
"""Of the digest in a job's name; 48 bits tell a team's jobs apart."""


class _Job(FrozenConfig):
    code_version: str = __version__

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all that the job shall do; the same command has the same digest."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the spec file."""
        return (self.model_dump_json(indent=2) + "\n").encode()


class PredictJob(_Job):
    """`cifar-ray predict` on a cluster."""

    verb: Literal["predict"] = "predict"
    source: str
    destination: str
    model: str | None = None
    """None is the model in the box, else `torchvision:NAME` or where a bundle lies."""
    config: LabellingConfig
    execution: ExecutionRequest
    options: RunOptions
    fresh: bool = False
    source_moved: bool = False
    root: str | None = None
    """Of a manifest's uris."""
    again: Literal["retry-failed", "update"] | None = None
    """What a run that is complete is opened again for."""

    @field_serializer("execution")
    def _decisions_only(self, execution: ExecutionRequest) -> dict[str, object]:
        # What the user left open must stay open: on a resume, run.json decides it.
        return execution.explicit()

    @field_validator("source", "destination", "model", "root")
    @classmethod
    def _without_credentials(cls, place: str | None) -> str | None:
        return place if place is None else without_credentials(place)


class TrainJob(_Job):
    """`cifar-ray train` on a cluster."""

    verb: Literal["train"] = "train"
    data: str
    destination: str
    config: TrainingConfig
    settings: tuple[str, ...] = ()
    """What `--set` changed in the recipe."""
    weights: str | None = None
    """A file of pretrained weights, as the cluster's nodes see it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = Field(1, ge=1)
    mlflow: bool = False

    @field_validator("data", "destination", "weights")
    @classmethod
    def _without_credentials(cls, place: str | None) -> str | None:
        return place if place is None else without_credentials(place)


class TuneJob(_Job):
    """`cifar-ray tune` on a cluster."""

    verb: Literal["tune"] = "tune"
    search: SearchSpec
    refit: bool = False

    @property
    def data(self) -> str:
        """DATA."""
        return self.search.data

    @property
    def destination(self) -> str:
        """The search's folder."""
        return self.search.run

    def moved(self, data: str, destination: str) -> "TuneJob":
        """Return the same search over other places."""
        search = self.search.model_copy(update={"data": data, "run": destination})
        return self.model_copy(update={"search": search})

    @field_validator("search")
    @classmethod
    def _without_credentials(cls, search: SearchSpec) -> SearchSpec:
        without_credentials(search.data)
        without_credentials(search.run)
        return search


class EvaluateJob(_Job):
    """`cifar-ray evaluate` on a cluster: on one node of it."""

    verb: Literal["evaluate"] = "evaluate"
    bundles: tuple[str, ...] = Field(min_length=1)
    data: str
    destination: str
    execution: ExecutionRequest = REFERENCE

    @field_validator("data", "destination")
    @classmethod
    def _without_credentials(cls, place: str) -> str:
        return without_credentials(place)

    @field_validator("bundles")
    @classmethod
    def _bundles_without_credentials(cls, bundles: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(without_credentials, bundles))


Job = PredictJob | TrainJob | TuneJob | EvaluateJob
_ADAPTER: TypeAdapter[Job] = TypeAdapter(Annotated[Job, Field(discriminator="verb")])


def read_job(path: Path) -> Job:
    """Read a spec file where it shall run.

    Raises `InputError` if it was written by another version of cifar-ray, before anything else
    about it is judged.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    there = content.get("code_version")
    if there != __version__:
        raise InputError(
            f"This job was submitted with cifar-ray {printable(str(there))}, and the cluster has "
            f"{__version__}. Install the same version on both sides (on every node: "
            f"pip install 'cifar-ray=={printable(str(there))}'), or submit with --ship-code."
        )
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise InputError(f"{path} is no spec of a job: {error}") from error


def without_credentials(place: str) -> str:
    """Return a place unchanged; `InputError` if a user name or password stands in it."""
    if "://" in place and "@" in urlsplit(place).netloc:
        shown = printable(place.split("@")[-1])
        raise InputError(
            f"…@{shown}: leave user name and password out; a job's spec may be read by everybody "
            "who may use the cluster. Give its nodes a role, or a secret, that opens the store."
        )
    return place


def is_local(place: str) -> bool:
    """Tell whether a place is a path, which another machine may not have."""
    return "://" not in place or place.startswith("file://")
