"""Where runs are written: atomic files in a folder or a bucket."""

from cifar_ray.storage.base import Store
from cifar_ray.storage.folder import FolderStore
from cifar_ray.storage.opening import open_store

__all__ = ["FolderStore", "Store", "open_store"]
