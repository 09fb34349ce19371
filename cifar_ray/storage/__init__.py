"""Where runs are written: atomic files in a folder or a bucket."""

from cifar_ray.storage.base import Store
from cifar_ray.storage.folder import FolderStore
from cifar_ray.storage.opening import open_store
from cifar_ray.storage.s3_address import S3_SCHEME, S3Address

__all__ = ["S3_SCHEME", "FolderStore", "S3Address", "Store", "open_store"]
