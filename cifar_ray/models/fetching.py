"""Bundles in a bucket: each comes into this machine's cache once, and is opened from there."""

import hashlib
import shutil
import uuid
from pathlib import Path

from cifar_ray.errors import InputError, printable
from cifar_ray.models.bundle import RECORD_FILE
from cifar_ray.models.cache import cache_folder
from cifar_ray.storage import FolderStore, Store, open_store
from cifar_ray.storage.folder_faults import folder_faults

IN_RUN = "bundle"
"""Where a training run has its bundle."""


def fetch_bundle(uri: str) -> Path:
    """Return a bundle, or that of a training run, as a folder of this machine.

    Raises `InputError` if there is none in the bucket.
    """
    store = open_store(uri)
    if isinstance(store, FolderStore):
        return store.root
    for place in ("", IN_RUN):
        try:
            record = store.read(f"{place}/{RECORD_FILE}".lstrip("/"))
        except FileNotFoundError:
            continue
        # The record names the weights by their digest.
        return download_bundle(store, place, hashlib.sha256(record).hexdigest())
    raise InputError(f"There is no bundle at {printable(uri)}, and no training run that has one.")


def download_bundle(store: Store, place: str, name: str) -> Path:
    """Return the cache's folder of that name, with a store's bundle in it."""
    folder = cache_folder() / "bundles" / name
    with folder_faults(folder):
        return folder if folder.exists() else _download(store, place, folder)


def _download(store: Store, place: str, folder: Path) -> Path:
    unfinished = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    unfinished.mkdir(parents=True)
    try:
        for file in store.names(place):
            (unfinished / file).write_bytes(store.read(f"{place}/{file}".lstrip("/")))
        try:
            unfinished.rename(folder)
        except OSError:
            # Another worker of this machine was first; its copy is as good.
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
