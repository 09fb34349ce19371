"""The model of a run: the copy of it that lies in DEST, and one that was uploaded beside DEST."""

from cifar_ray.config.labelling import BundleReference
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.fetching import download_bundle
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


def upload_bundle(bundle: Bundle, place: str) -> str:
    """Copy a bundle below `place` unless it is there; return where it is."""
    uploaded = f"{place}/{UPLOADED}"
    store = open_store(uploaded)
    if not store.exists(f"{bundle.digest}/{MANIFEST}"):
        files = sorted(bundle.path.iterdir(), key=lambda file: (file.name == MANIFEST, file.name))
        for file in files:
            store.write(f"{bundle.digest}/{file.name}", file.read_bytes())
    return f"{uploaded}/{bundle.digest}"


def run_bundle(store: Store, reference: BundleReference) -> Bundle:
    """Open DEST's copy. One in a bucket comes into this machine's cache first, once a machine."""
    if isinstance(store, FolderStore):
        return Bundle.load(store.root / LabellingRun.BUNDLE)
    return Bundle.load(download_bundle(store, LabellingRun.BUNDLE, reference.digest))
