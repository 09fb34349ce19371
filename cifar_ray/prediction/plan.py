"""Before the first part: what to label, with which model and how, written down in `run.json`.

A DEST that holds a run already is taken up if the run is the same, and refused if it is not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

import cifar_ray
from cifar_ray.config.execution import Execution, ExecutionRequest
from cifar_ray.config.labelling import (
    RECORD_FORMAT,
    BundleReference,
    LabellingConfig,
    RunRecord,
    SourceReference,
)
from cifar_ray.errors import InputError, printable
from cifar_ray.models.backends import resolve_execution
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.bundle_spec import BundleSpec
from cifar_ray.models.opening import open_bundle
from cifar_ray.prediction.renewal.history import finish_moves
from cifar_ray.prediction.row import refuse_taken_names
from cifar_ray.prediction.run_bundle import store_bundle
from cifar_ray.prediction.sources import (
    Entry,
    Skipped,
    Source,
    find_source,
    open_source,
    split_source,
)
from cifar_ray.prediction.suitability import unlike_training_images
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import S3_SCHEME, FolderStore, S3Address, Store, open_store

FIRST_IMAGES = 50
OPTIONS = {
    "sample_seed": "seed",
    "decode_timeout_s": "decode-timeout",
    "decode_memory_mb": "decode-memory",
}
"""Of the command line, where they are not called as in the config."""
FOLDERS = ("folder", "parquet", "tar", "zip")
"""Kinds of SOURCE in whose folder anything new would be listed."""
OWN_NAMES = (
    LabellingRun.RECEIPT,
    LabellingRun.FORECAST,
    LabellingRun.FAILURES,
    LabellingRun.REPORT,
    LabellingRun.PARTS_INDEX,
    LabellingRun.PREDICTIONS,
    LabellingRun.MANIFEST,
    LabellingRun.BUNDLE,
    LabellingRun.TEMPORARY,
    LabellingRun.HISTORY,
    LabellingRun.MARKS,
    LabellingRun.MOVES,
    LabellingRun.UPDATE,
    LabellingRun.RECORD,
)
"""Of a run, as `--fresh` deletes them: what is left if that is stopped is known as a run still."""
BEFORE_RUN = (
    LabellingRun.FORECAST,
    LabellingRun.LEASE,
    LabellingRun.TEMPORARY,
    LabellingRun.BUNDLE,
)
"""What `plan` leaves, and who was stopped before `run.json` was written."""


Resolve = Callable[[ExecutionRequest, BundleSpec], Execution]
"""Decides how to compute, for the machines that will."""


@dataclass(frozen=True, slots=True)
class Request:
    """A labelling run as the user asked for it."""

    source: str
    destination: str
    model: str | None
    weights: Path | None
    config: LabellingConfig
    execution: ExecutionRequest
    fresh: bool = False
    source_moved: bool = False
    root: str | None = None
    """Of a manifest's uris."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that is ready to start or to go on."""

    record: RunRecord
    bundle: Bundle
    source: Source
    store: Store
    resumed: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can be carried out; nothing is written yet."""

    request: Request
    reference: SourceReference
    store: Store
    bundle: Bundle
    existing: RunRecord | None
    first: list[Entry]
    """Some of the first images, for a new run."""

    def source(self) -> Source:
        """Open SOURCE, cut into ranges as the run has it, or would: shards are numbered in them."""
        if self.existing is None:
            config = self.request.config
            return open_source(split_source(self.reference, config), config)
        moved = self.reference.model_copy(update={"ranges": self.existing.source.ranges})
        return open_source(moved, self.existing.config)


def prepare(request: Request) -> Prepared:
    """Check a request against SOURCE, model and DEST; write nothing.

    Raises `InputError` for a source, model or DEST that cannot be used, with what to do.
    """
    reference = find_source(request.source, request.root, request.config)
    refuse_taken_names(reference.carried)
    store = destination_store(request.destination, reference)
    bundle = open_bundle(request.model, request.weights)
    existing = None if request.fresh else read_record(store)
    if existing is not None:
        check_same_run(existing, request, bundle, reference)
        return Prepared(request, reference, store, bundle, existing, [])
    if not (request.fresh and store.exists(LabellingRun.RECORD)):
        refuse_strangers(store)
    first = first_entries(open_source(reference, request.config))
    return Prepared(request, reference, store, bundle, None, first)


def settle(prepared: Prepared, resolve: Resolve = resolve_execution) -> Plan:
    """Write `run.json` and the bundle's copy, unless the run has them. DEST's lease is held."""
    request, store, bundle = prepared.request, prepared.store, prepared.bundle
    existing = prepared.existing
    if existing is not None:
        finish_moves(store)
        if not store.names(LabellingRun.BUNDLE):
            store_bundle(store, bundle)  # `verify --repair` has moved a damaged copy away.
        return Plan(existing, bundle, prepared.source(), store, resumed=True)
    if request.fresh and store.exists(LabellingRun.RECORD):
        for name in OWN_NAMES:
            store.delete(name)
    source = prepared.source()
    warnings = unlike_training_images(
        prepared.first, source.fetcher(), bundle.spec, request.config.decode_memory_mb * 2**20
    )
    record = RunRecord(
        code_version=cifar_ray.__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        config=request.config,
        execution=resolve(request.execution, bundle.spec),
        bundle=BundleReference(id=bundle.id, digest=bundle.digest),
        source=source.reference,
        warnings=warnings,
    )
    store_bundle(store, bundle)
    if not store.create(LabellingRun.RECORD, record.to_bytes()):
        raise InputError(
            f"Another run has begun in --out {printable(store.uri)} just now. Give the command "
            "again once it has ended, or choose another --out."
        )
    return Plan(record, bundle, source, store, resumed=False)


def make_plan(request: Request) -> Plan:
    """Prepare and settle at once: for a DEST that nobody else can write to."""
    return settle(prepare(request))


def destination_store(destination: str, source: SourceReference) -> Store:
    """Return DEST; it must lie outside SOURCE, or its files would be listed."""
    store = open_store(destination)
    store.check()
    if lies_inside(store, source):
        raise InputError(
            f"--out {printable(store.uri)} lies inside SOURCE {printable(source.uri)}, so that "
            "results would be listed as input. Give a place outside of it."
        )
    return store


def lies_inside(store: Store, source: SourceReference) -> bool:
    """Tell whether a place would be listed with SOURCE."""
    if isinstance(store, FolderStore):
        resolved, root = store.root.resolve(), Path(source.uri).resolve()
        return source.kind in FOLDERS and (resolved == root or root in resolved.parents)
    in_bucket = source.uri.startswith(S3_SCHEME)
    return in_bucket and S3Address.parse(source.uri).contains(S3Address.parse(store.uri))


def read_record(store: Store) -> RunRecord | None:
    """Return DEST's `run.json`; None if there is none. `InputError` if it is not one of ours."""
    try:
        data = store.read(LabellingRun.RECORD)
    except FileNotFoundError:
        return None
    try:
        return RunRecord.model_validate_json(data)
    except ValidationError as error:
        raise InputError(
            f"{printable(store.uri)}/{LabellingRun.RECORD} was not written by this version of "
            f"cifar-ray (format {RECORD_FORMAT}), or is damaged. Choose another --out, or start "
            "over with --fresh."
        ) from error


def check_same_run(
    record: RunRecord, request: Request, bundle: Bundle, source: SourceReference
) -> None:
    """Raise `InputError` that names what differs between DEST's run and the request."""
    differences = []
    if record.bundle.digest != bundle.digest:
        differences.append(f"model: there {record.bundle.id}, now {bundle.id}")
    for name in LabellingConfig.model_fields:
        there, now = getattr(record.config, name), getattr(request.config, name)
        if there != now:
            option = OPTIONS.get(name, name.replace("_", "-"))
            differences.append(f"--{option}: there {there}, now {now}")
    for name, now in request.execution.explicit().items():
        there = getattr(record.execution, name)
        if there != now:
            differences.append(f"--{name.replace('_', '-')}: there {there}, now {now}")
    if record.source.kind != source.kind:
        differences.append(f"kind of SOURCE: there {record.source.kind}, now {source.kind}")
    if record.source.digest != source.digest:
        differences.append("SOURCE: the manifest is not the one that it was")
    if _place(record.source) != _place(source) and not request.source_moved:
        there, now = _place(record.source), _place(source)
        differences.append(f"SOURCE: there {there}, now {now} (--source-moved if it only moved)")
    if differences:
        raise InputError(
            "--out holds another run, which differs in\n  "
            + "\n  ".join(differences)
            + "\nGive what it was started with, choose another --out, or start over with --fresh."
        )


def _place(source: SourceReference) -> str:
    """Return where a source is, in words."""
    place = printable(source.uri)
    if source.pattern is not None:
        place += f" ({printable(source.pattern)})"
    if source.root is not None:
        place += f" with --root {printable(source.root)}"
    return place


def first_entries(source: Source) -> list[Entry]:
    """Return some of the first images; `InputError` if there is none at all."""
    skipped = 0
    entries: list[Entry] = []
    for range_number in range(len(source.reference.ranges)):
        for item in source.listing(range_number).entries(None):
            if isinstance(item, Entry):
                entries.append(item)
            skipped += isinstance(item, Skipped)
            if len(entries) == FIRST_IMAGES:
                return entries
    if not entries:
        found = f"{skipped} other files" if skipped else "no files"
        raise InputError(
            f"SOURCE holds no images ({found} found). Files with an image's extension, an unknown "
            "one or none are labelled; --include names others."
        )
    return entries


def refuse_strangers(store: Store) -> None:
    """Raise `InputError` if a place without a run holds what is none of ours."""
    names = [name for name in store.names("") if name not in BEFORE_RUN]
    if names:
        raise InputError(
            f"--out {printable(store.uri)} is not empty and holds no run "
            f"({printable(names[0])}, …). Give a new or empty folder."
        )
