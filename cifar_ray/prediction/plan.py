"""Before the first part: what to label, with which model and how, written down in `run.json`.

A DEST that holds a run already is taken up if the run is the same, and refused if it is not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

import cifar_ray
from cifar_ray.config.execution import ExecutionRequest
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
from cifar_ray.prediction.listing import Entry, FolderListing, Listing, Skipped
from cifar_ray.prediction.sampling import FirstEntries, SampledEntries
from cifar_ray.prediction.suitability import unlike_training_images
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import FolderStore, Store

FIRST_IMAGES = 50
OWN_NAMES = (
    LabellingRun.RECORD,
    LabellingRun.RECEIPT,
    LabellingRun.FAILURES,
    LabellingRun.REPORT,
    LabellingRun.PARTS_INDEX,
    LabellingRun.PREDICTIONS,
    LabellingRun.MANIFEST,
    LabellingRun.BUNDLE,
    LabellingRun.TEMPORARY,
    LabellingRun.HISTORY,
)


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


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that is ready to start or to go on."""

    record: RunRecord
    bundle: Bundle
    source: str
    store: Store
    listing: Listing
    resumed: bool


def make_plan(request: Request) -> Plan:
    """Check the request, and write `run.json` unless the run has one.

    Raises `InputError` for a source, model or DEST that cannot be used, with what to do.
    """
    root = source_folder(request.source)
    store = destination_store(request.destination, root)
    listing = open_listing(root, request.config)
    bundle = open_bundle(request.model, request.weights)
    if request.fresh:
        for name in OWN_NAMES:
            store.delete(name)
    existing = read_record(store)
    if existing is not None:
        check_same_run(existing, request, bundle, str(root))
        return Plan(existing, bundle, str(root), store, listing, resumed=True)
    _refuse_strangers(store)
    first = first_entries(listing)
    record = RunRecord(
        code_version=cifar_ray.__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        config=request.config,
        execution=resolve_execution(request.execution, bundle.spec),
        bundle=BundleReference(id=bundle.id, digest=bundle.digest),
        source=SourceReference(kind="folder", uri=str(root)),
        warnings=unlike_training_images(first, root, bundle.spec),
    )
    for path in sorted(bundle.path.iterdir()):
        store.write(f"{LabellingRun.BUNDLE}/{path.name}", path.read_bytes())
    store.write(LabellingRun.RECORD, record.to_bytes())
    return Plan(record, bundle, str(root), store, listing, resumed=False)


def source_folder(source: str) -> Path:
    """Return the folder that SOURCE names."""
    if "://" in source and not source.startswith("file://"):
        scheme = source.split("://")[0]
        raise InputError(
            f"SOURCE {printable(source)}: {scheme}:// is not read by this version. "
            "Give a folder on this machine."
        )
    root = Path(source.removeprefix("file://")).expanduser()
    if not root.exists():
        raise InputError(f"SOURCE {printable(str(root))} does not exist. Give a folder of images.")
    if not root.is_dir():
        raise InputError(
            f"SOURCE {printable(str(root))} is a file. Give the folder that holds the images."
        )
    return root.absolute()


def destination_store(destination: str, source: Path) -> FolderStore:
    """Return DEST; it must lie outside SOURCE, or its files would be listed."""
    path = Path(destination.removeprefix("file://")).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {printable(str(path))} is a file. Give a new or empty folder.")
    resolved, root = path.resolve(), source.resolve()
    if resolved == root or root in resolved.parents:
        raise InputError(
            f"--out {printable(str(path))} lies inside SOURCE {printable(str(source))}, so that "
            "results would be listed as input. Give a folder outside of it."
        )
    return FolderStore(path)


def open_listing(root: Path, config: LabellingConfig) -> Listing:
    """Return the listing that the run labels: the folder, or the asked-for part of it."""
    listing = FolderListing(root, config)
    if config.sample is not None:
        return SampledEntries(listing, config.sample, config.sample_seed)
    if config.limit is not None:
        return FirstEntries(listing, config.limit)
    return listing


def open_bundle(model: str | None, weights: Path | None) -> Bundle:
    """Return the model: the one in the box, a bundle's folder, or `torchvision:NAME`."""
    if model is None:
        return Bundle.default()
    if model.startswith("torchvision:"):
        from cifar_ray.models.pretrained import torchvision_bundle

        return torchvision_bundle(model.removeprefix("torchvision:"), weights)
    return Bundle.load(Path(model).expanduser())


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


def check_same_run(record: RunRecord, request: Request, bundle: Bundle, root: str) -> None:
    """Raise `InputError` that names what differs between DEST's run and the request."""
    differences = []
    if record.bundle.digest != bundle.digest:
        differences.append(f"model: there {record.bundle.id}, now {bundle.id}")
    for name in LabellingConfig.model_fields:
        there, now = getattr(record.config, name), getattr(request.config, name)
        if there != now:
            differences.append(f"--{name.replace('_', '-')}: there {there}, now {now}")
    for name, now in request.execution.explicit().items():
        there = getattr(record.execution, name)
        if there != now:
            differences.append(f"--{name.replace('_', '-')}: there {there}, now {now}")
    if record.source.uri != root and not request.source_moved:
        differences.append(f"SOURCE: there {printable(record.source.uri)}, now {printable(root)}")
    if differences:
        raise InputError(
            "--out holds another run, which differs in\n  "
            + "\n  ".join(differences)
            + "\nGive what it was started with, choose another --out, or start over with --fresh."
        )


def first_entries(listing: Listing) -> list[Entry]:
    """Return some of the first images; `InputError` if there is none at all."""
    entries = list(islice(_listed(listing), FIRST_IMAGES))
    if not entries:
        skipped = sum(1 for item in listing.entries(None) if isinstance(item, Skipped))
        found = f"{skipped} other files" if skipped else "no files"
        raise InputError(
            f"SOURCE holds no images ({found} found). Files with an image's extension, an unknown "
            "one or none are labelled; --include names others."
        )
    return entries


def _listed(listing: Listing) -> Iterator[Entry]:
    return (item for item in listing.entries(None) if isinstance(item, Entry))


def _refuse_strangers(store: Store) -> None:
    names = [name for name in store.names("") if name not in OWN_NAMES]
    if names:
        raise InputError(
            f"--out {printable(store.uri)} is not empty and holds no run "
            f"({printable(names[0])}, …). Give a new or empty folder."
        )
