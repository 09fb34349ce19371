"""From a place as the user writes it to the store that it is."""

from pathlib import Path

from cifar_ray.errors import InputError, printable
from cifar_ray.storage.base import Store
from cifar_ray.storage.folder import FolderStore

FILE_SCHEME = "file://"


def open_store(uri: str) -> Store:
    """Return the store at a folder or `file://` uri; nothing is made there before a write."""
    if "://" in uri and not uri.startswith(FILE_SCHEME):
        scheme = uri.split("://")[0]
        raise InputError(
            f"{printable(uri)}: {scheme}:// is not written to by this version. "
            "Give a folder on this machine."
        )
    return FolderStore(Path(uri.removeprefix(FILE_SCHEME)).expanduser())
