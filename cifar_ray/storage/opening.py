"""From a place as the user writes it to the store that it is."""

from pathlib import Path

from cifar_ray.errors import InputError, printable
from cifar_ray.storage.base import Store
from cifar_ray.storage.folder import FolderStore
from cifar_ray.storage.s3_address import S3_SCHEME, S3Address

FILE_SCHEME = "file://"


def open_store(uri: str) -> Store:
    """Return the store at a folder, `file://` or `s3://` uri; nothing is made there before a write.

    Nothing is asked of a bucket either: `check` does that.
    """
    if uri.startswith(S3_SCHEME):
        # boto3 takes a third of a second to load.
        from cifar_ray.storage.s3 import S3Store

        return S3Store(S3Address.parse(uri))
    if "://" in uri and not uri.startswith(FILE_SCHEME):
        scheme = uri.split("://")[0]
        raise InputError(
            f"{printable(uri)}: {scheme}:// is not written to. Give a folder on this machine, or "
            "s3://BUCKET/PREFIX with AWS_ENDPOINT_URL for a store of any maker."
        )
    return FolderStore(Path(uri.removeprefix(FILE_SCHEME)).expanduser())
