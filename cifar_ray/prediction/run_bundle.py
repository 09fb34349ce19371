"""The model of a run: the copy of it that lies in DEST, and one that was uploaded beside DEST."""

import shutil
import uuid
from pathlib import Path

from cifar_ray.config.labelling import BundleReference
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.cache import cache_folder
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import FolderStore, Store, open_store

UPLOADED = "_bundles"
"""Folder beside DEST, a bundle each below its digest. Listings skip it: it begins with `_`."""
MANIFEST = "bundle.json"
"""Uploaded last, so that a bundle which has one is whole."""


def store_bundle(store: Store, bundle: Bundle) -> None:
    """Copy a bundle into DEST."""
    for path in sorted(bundle.path.iterdir()):
        store.write(f"{LabellingRun.BUNDLE}/{path.name}", path.read_bytes())


def upload_bundle(path: Path, place: str) -> str:
    """Copy a bundle below `place` unless it is there; return where it is."""
    bundle = Bundle.load(path)
    uploaded = f"{place}/{UPLOADED}"
    store = open_store(uploaded)
    if not store.exists(f"{bundle.digest}/{MANIFEST}"):
        files = sorted(bundle.path.iterdir(), key=lambda file: (file.name == MANIFEST, file.name))
        for file in files:
            store.write(f"{bundle.digest}/{file.name}", file.read_bytes())
    return f"{uploaded}/{bundle.digest}"


def fetch_bundle(uri: str) -> Path:
    """Return an uploaded bundle as a folder of this machine, downloaded once a machine."""
    store = open_store(uri)
    if isinstance(store, FolderStore):
        return store.root
    folder = _cached(uri.rstrip("/").rpartition("/")[2])
    if not folder.exists():
        _download(store, "", folder)
    return folder


def run_bundle(store: Store, reference: BundleReference) -> Bundle:
    """Open DEST's copy. One in a bucket comes into this machine's cache first, once a machine."""
    if isinstance(store, FolderStore):
        return Bundle.load(store.root / LabellingRun.BUNDLE)
    folder = _cached(reference.digest)
    if not folder.exists():
        _download(store, LabellingRun.BUNDLE, folder)
    return Bundle.load(folder)


def _cached(digest: str) -> Path:
    return cache_folder() / "bundles" / digest


def _download(store: Store, place: str, folder: Path) -> None:
    unfinished = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    unfinished.mkdir(parents=True)
    try:
        for name in store.names(place):
            (unfinished / name).write_bytes(store.read(f"{place}/{name}".lstrip("/")))
        try:
            unfinished.rename(folder)
        except OSError:
            # Another worker of this machine was first; its copy is as good.
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
