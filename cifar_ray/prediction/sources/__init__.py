"""Stores of images: folders, buckets, manifests, containers. All list and read alike."""

from cifar_ray.prediction.sources.base import (
    Boundary,
    Entry,
    Fetcher,
    ListedItem,
    Listing,
    Skipped,
    Source,
    TransientFault,
)
from cifar_ray.prediction.sources.opening import find_source, open_source, split_source

__all__ = [
    "Boundary",
    "Entry",
    "Fetcher",
    "ListedItem",
    "Listing",
    "Skipped",
    "Source",
    "TransientFault",
    "find_source",
    "open_source",
    "split_source",
]
