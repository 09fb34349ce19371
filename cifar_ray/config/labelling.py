"""What a labelling run is, and the record of it (`run.json`) that a resume must match."""

import hashlib
import json
from typing import Any, Final, Literal

from pydantic import Field

from cifar_ray.config.execution import Execution
from cifar_ray.config.frozen import FrozenConfig

RECORD_FORMAT: Final = 2
"""Since 2, a shard's digest is taken column by column."""


class LabellingConfig(FrozenConfig):
    """What the user asked for, as far as it decides the bytes of the rows."""

    top_k: int = Field(5, ge=1)
    probabilities: bool = False
    embeddings: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = Field(None, ge=1)
    sample: int | None = Field(None, ge=1)
    sample_seed: int = 0
    images_per_shard: int | None = Field(None, ge=1)
    decode_timeout_s: float = Field(60.0, gt=0)
    """That decoding one image may take; a second more for each MiB of its file."""
    decode_memory_mb: int = Field(6144, ge=64)
    """MiB that decoding one image may take. An image of the largest size takes 5,000."""
    columns: tuple[str, ...] = ()
    """Further columns of a manifest or a Parquet dataset that the rows shall have."""

    @property
    def partial(self) -> bool:
        """Whether the run is meant to leave out a part of the store."""
        return self.limit is not None or self.sample is not None


class RunOptions(FrozenConfig):
    """How to run it; nothing here changes a byte of the rows."""

    engine: Literal["auto", "local", "ray"] = "auto"
    address: str | None = None
    workers: int | None = Field(None, ge=1)
    max_failure_rate: float = Field(0.05, ge=0, le=1)
    store_timeout_s: float = Field(300.0, ge=0)
    dashboard: bool = False
    """Whether a Ray that starts here has its dashboard."""


class BundleReference(FrozenConfig):
    """The model of a run."""

    id: str
    digest: str


SourceKind = Literal["folder", "s3", "manifest", "inventory", "parquet", "tar", "zip"]


class CarriedColumn(FrozenConfig):
    """A column of SOURCE that the rows have too; `type` as Arrow writes it, such as `int64`."""

    name: str
    type: str


class SourceReference(FrozenConfig):
    """The store of a run. Behind each key of `ranges` begins a part that is listed by itself."""

    kind: SourceKind
    uri: str
    """The folder, bucket, manifest or container; of a pattern, the folder in which it begins."""
    ranges: tuple[str, ...] = ("",)
    pattern: str | None = None
    """Containers alone: which files below the folder `uri`; None if `uri` is a container."""
    root: str | None = None
    """Manifests alone: the folder or prefix below which every uri lies; None for the bucket that
    the manifest itself lies in."""
    digest: str | None = None
    """Manifests alone: of the file; a changed one is another listing."""
    carried: tuple[CarriedColumn, ...] = ()

    @property
    def ordered(self) -> bool:
        """Whether it names each image once, in the order of keys."""
        return self.kind in ("folder", "s3")

    @property
    def in_bucket(self) -> bool:
        """Whether its images lie in a bucket."""
        return (self.root or self.uri).startswith("s3://")

    def without_ranges(self) -> "SourceReference":
        """Return what a reader needs, which is small whatever the store is."""
        return self.model_copy(update={"ranges": ()})


class RunRecord(FrozenConfig):
    """`run.json`: written before the first part; every worker reads it and follows it."""

    format_version: Literal[2] = RECORD_FORMAT
    code_version: str
    created_at: str
    config: LabellingConfig
    execution: Execution
    bundle: BundleReference
    source: SourceReference
    warnings: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Return what decides the bytes of the rows, as plain JSON values."""
        record = self.model_dump(mode="json")
        return {
            "format_version": record["format_version"],
            "config": record["config"],
            "execution": record["execution"],
            "bundle": record["bundle"]["digest"],
            "source": {
                name: record["source"][name] for name in ("kind", "ranges", "digest", "carried")
            },
        }

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the identity; every part's footer carries it."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the file."""
        return (self.model_dump_json(indent=2) + "\n").encode()
