"""The rows of a shard: schema, and how outcomes of images become columns."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cifar_ray.config.labelling import CarriedColumn, LabellingConfig
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.sources import Entry
from cifar_ray.prediction.sources.base import UNKNOWN_SIZE
from cifar_ray.prediction.sources.columns import arrow_type

OK = "ok"
STATUSES = (
    OK,
    "not_found",
    "denied",
    "archived",
    "changed",
    "fetch_failed",
    "empty",
    "not_an_image",
    "unsupported",
    "truncated",
    "too_large",
    "decode_failed",
    "model_failed",
)


def row_schema(config: LabellingConfig, carried: Sequence[CarriedColumn] = ()) -> pa.Schema:
    """Return the schema of `predictions/`, with the columns that the run asks for.

    `carried` are those that come from SOURCE; they stand last.
    """
    fields = [
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.binary(32)),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("label", pa.string()),
        pa.field("label_id", pa.int32()),
        pa.field("confidence", pa.float32()),
        pa.field("top_labels", pa.list_(pa.string())),
        pa.field("top_scores", pa.list_(pa.float32())),
        pa.field("model", pa.string(), nullable=False),
    ]
    if config.probabilities:
        fields.append(pa.field("probabilities", pa.list_(pa.float32())))
    if config.embeddings:
        fields.append(pa.field("embedding", pa.list_(pa.float32())))
    fields.extend(pa.field(column.name, arrow_type(column.type)) for column in carried)
    return pa.schema(fields)


def refuse_taken_names(carried: Sequence[CarriedColumn]) -> None:
    """Raise `InputError` for a column of SOURCE that has the name of one of ours."""
    ours = row_schema(LabellingConfig(probabilities=True, embeddings=True)).names
    for column in carried:
        if column.name in ours:
            raise InputError(
                f"--columns: {printable(column.name)} is a column of the rows already. "
                "Rename it in SOURCE, or leave it out."
            )


@dataclass(slots=True)
class Outcome:
    """What became of one image before the model: its facts, or the fault that it gets."""

    sha256: bytes | None = None
    status: str = OK
    error: str | None = None
    width: int | None = None
    height: int | None = None
    transient: bool = False
    kept: bool = False
    """Its row is there already and is taken over."""
    num_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Scoring:
    """What turns logits into labels: names, and the temperature (None: not calibrated)."""

    labels: tuple[str, ...]
    temperature: float | None
    model: str
    config: LabellingConfig
    carried: tuple[CarriedColumn, ...] = ()


@dataclass(slots=True)
class ShardRows:
    """A shard's rows as they come in, batch by batch, in the manifest's order."""

    shard: str
    entries: list[Entry]
    uris: list[str]
    outcomes: list[Outcome] = field(default_factory=list)
    logits: list[NDArray[np.float32]] = field(default_factory=list)
    features: list[NDArray[np.float32]] = field(default_factory=list)

    def add(
        self,
        outcomes: Sequence[Outcome],
        logits: NDArray[np.float32],
        features: NDArray[np.float32] | None,
    ) -> None:
        """Add a batch; `logits` (B×C) may be longer than `outcomes`, by the batch's padding."""
        rows = logits[: len(outcomes)]
        finite_rows = np.atleast_1d(np.isfinite(rows).all(axis=1))
        for outcome, finite in zip(outcomes, finite_rows, strict=True):
            if outcome.status == OK and not finite:
                outcome.status, outcome.error = "model_failed", "the model gave no finite scores"
        self.outcomes.extend(outcomes)
        self.logits.append(np.array(rows))
        if features is not None:
            self.features.append(np.array(features[: len(outcomes)]))

    def counts(self) -> dict[str, int]:
        """Return how many images have each status."""
        return dict(sorted(Counter(outcome.status for outcome in self.outcomes).items()))

    def table(self, scoring: Scoring) -> pa.Table:
        """Return the rows."""
        outcomes = self.outcomes
        columns: dict[str, object] = {
            "key": [entry.key for entry in self.entries],
            "uri": self.uris,
            "version": [entry.version for entry in self.entries],
            "size_bytes": [
                outcome.num_bytes if entry.size_bytes == UNKNOWN_SIZE else entry.size_bytes
                for entry, outcome in zip(self.entries, outcomes, strict=True)
            ],
            "sha256": [outcome.sha256 for outcome in outcomes],
            "shard": [self.shard] * len(outcomes),
            "status": [outcome.status for outcome in outcomes],
            "error": [outcome.error for outcome in outcomes],
            "width": [outcome.width for outcome in outcomes],
            "height": [outcome.height for outcome in outcomes],
            "model": [scoring.model] * len(outcomes),
        }
        ok = np.array([outcome.status == OK for outcome in outcomes], dtype=bool)
        columns |= label_columns(np.concatenate(self.logits), ok, scoring)
        if scoring.config.embeddings:
            columns["embedding"] = lists(np.concatenate(self.features), ok)
        for at, column in enumerate(scoring.carried):
            columns[column.name] = [entry.carried[at] for entry in self.entries]
        return pa.table(columns, schema=row_schema(scoring.config, scoring.carried))


def label_columns(
    logits: NDArray[np.float32], ok: NDArray[np.bool_], scoring: Scoring
) -> dict[str, object]:
    """Turn logits (N×C) into labels and scores; rows that are not `ok` (N) become null."""
    scores = probabilities(np.where(ok[:, None], logits, 0.0), scoring.temperature)
    # A stable sort of the logits, so that equal scores keep the order of the label names.
    top_k = min(scoring.config.top_k, logits.shape[1])
    order = np.argsort(-np.where(ok[:, None], logits, 0.0), axis=1, kind="stable")[:, :top_k]
    names = pa.array(scoring.labels)
    best = pa.array(order[:, 0].astype(np.int32), mask=~ok)
    top_scores = np.take_along_axis(scores, order, axis=1)
    calibrated = ok if scoring.temperature is not None else np.zeros_like(ok)
    columns: dict[str, object] = {
        "label": names.take(best),
        "label_id": best,
        "confidence": pa.array(top_scores[:, 0], mask=~calibrated),
        "top_labels": lists(order, ok, names),
        "top_scores": lists(top_scores, ok),
    }
    if scoring.config.probabilities:
        columns["probabilities"] = lists(scores, ok)
    return columns


def probabilities(logits: NDArray[np.float32], temperature: float | None) -> NDArray[np.float32]:
    """Softmax of logits (N×C) over the temperature, computed in float64 and rounded once."""
    scaled = logits.astype(np.float64) / (temperature or 1.0)
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares.astype(np.float32)


def lists(
    values: NDArray[np.generic], ok: NDArray[np.bool_], names: pa.Array | None = None
) -> pa.ListArray:
    """Make a list column of an N×K array, null where not `ok`; indices become names if given."""
    width = values.shape[1]
    offsets = np.concatenate([[0], np.cumsum(ok) * width]).astype(np.int32)
    flat = pa.array(values[ok].ravel())
    if names is not None:
        flat = names.take(flat)
    # A list array takes nulls from its offsets, and needs the last one to be valid.
    mask = np.concatenate([~ok, [False]])
    return pa.ListArray.from_arrays(pa.array(offsets, mask=mask), flat)
