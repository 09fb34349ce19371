"""The model of a run, from the copy of it that lies in DEST."""

import shutil
import uuid
from pathlib import Path

from cifar_ray.config.labelling import BundleReference
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.cache import cache_folder
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import FolderStore, Store


def store_bundle(store: Store, bundle: Bundle) -> None:
    """Copy a bundle into DEST."""
    for path in sorted(bundle.path.iterdir()):
        store.write(f"{LabellingRun.BUNDLE}/{path.name}", path.read_bytes())


def run_bundle(store: Store, reference: BundleReference) -> Bundle:
    """Open DEST's copy. One in a bucket comes into this machine's cache first, once a machine."""
    if isinstance(store, FolderStore):
        return Bundle.load(store.root / LabellingRun.BUNDLE)
    folder = cache_folder() / "bundles" / reference.digest
    if not folder.exists():
        _download(store, folder)
    return Bundle.load(folder)


def _download(store: Store, folder: Path) -> None:
    unfinished = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    unfinished.mkdir(parents=True)
    try:
        for name in store.names(LabellingRun.BUNDLE):
            (unfinished / name).write_bytes(store.read(f"{LabellingRun.BUNDLE}/{name}"))
        try:
            unfinished.rename(folder)
        except OSError:
            # Another worker of this machine was first; its copy is as good.
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
