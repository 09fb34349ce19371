"""The receipt: what a run found and did, in numbers. While it stands, the run is sealed."""

import hashlib

from pydantic import Field, ValidationError

from cifar_ray.config.frozen import FrozenConfig
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.forecasting.forecast import Compared
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import Store
from cifar_ray.storage.digests import file_digest

RECEIPT_FORMAT = 1


class Receipt(FrozenConfig):
    """`receipt.json`: written last; while it stands, the run is sealed."""

    format_version: int = RECEIPT_FORMAT
    partial: dict[str, int] | None
    """`--limit` or `--sample`, where the run was meant to leave images out; `found` is then what
    was looked at."""
    found: int
    skipped: dict[str, int]
    """By extension or reason."""
    listed: int
    ok: int
    failed: dict[str, int]
    """By status."""
    repeated: int = 0
    """Rows whose image an earlier row has too; manifests may list one twice."""
    image_bytes: int
    parts: int
    run_digest: str
    manifest_digest: str
    ends_digest: str = ""
    """Over the files that end the ranges of the manifest."""
    parts_digest: str
    warnings: tuple[str, ...] = ()
    """Those of `run.json`, and that of the labelling itself."""
    forecast: dict[str, Compared] | None = None
    """What `plan` had said, beside what came; where one command did the whole run."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 (hex) of the run's other files, by name; set when it is sealed."""
    sealed_at: str
    digest: str = ""
    """SHA-256 (hex) of all of the above; set when it is sealed."""

    @property
    def num_failed(self) -> int:
        """Images without a label."""
        return sum(self.failed.values())

    @property
    def num_skipped(self) -> int:
        """Files that are no images."""
        return sum(self.skipped.values())

    @property
    def failure_rate(self) -> float:
        """Share of the listed images that have no label."""
        return self.num_failed / self.listed if self.listed else 0.0

    def own_digest(self) -> str:
        """Return what `digest` must be; what was not said is left out, as older receipts had it."""
        unsaid = {name for name in ("warnings", "forecast") if not getattr(self, name)}
        text = self.model_dump_json(exclude={"digest", *unsaid})
        return hashlib.sha256(text.encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the file."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def read_receipt(store: Store) -> Receipt | None:
    """Return the receipt of a sealed run; None if the run is open.

    Raises `InputError` for one that was not written by this version, or is damaged.
    """
    try:
        return Receipt.model_validate_json(store.read(LabellingRun.RECEIPT))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise InputError(
            f"{printable(store.uri)}/{LabellingRun.RECEIPT} is damaged, or of another version. "
            "`cifar-ray verify DEST --repair` opens the run again; `predict` then seals it."
        ) from error


def seal(store: Store, receipt: Receipt) -> Receipt:
    """Write the receipt: the last file of a run, so that all others are there when it is."""
    named = [LabellingRun.RECORD, LabellingRun.FAILURES, LabellingRun.REPORT]
    named += [f"{LabellingRun.BUNDLE}/{name}" for name in store.names(LabellingRun.BUNDLE)]
    files = {name: file_digest(store, name).sha256.hex() for name in named if store.exists(name)}
    sealed = receipt.model_copy(update={"files": files})
    sealed = sealed.model_copy(update={"digest": sealed.own_digest()})
    store.write(LabellingRun.RECEIPT, sealed.to_bytes())
    return sealed
