"""A control read of a store, so that one that went away is not taken for one that holds nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cifar_ray.config.labelling import SourceReference
from cifar_ray.prediction.sources.base import Entry, ListedItem, Listing
from cifar_ray.prediction.sources.folder_fetch import FolderFetcher
from cifar_ray.storage import S3_SCHEME, S3Address


@dataclass(frozen=True, slots=True)
class ControlledListing:
    """A listing of a run: images were there when the run began, so that there must be some now.

    An unplugged disk leaves an empty folder behind, which lists as nothing: its end is believed
    only while the store is there.
    """

    listing: Listing
    reference: SourceReference

    def entries(self, after: str | None) -> Iterator[ListedItem]:
        """Yield what `listing` does; `StoreUnavailable` if the store is gone or empty."""
        check_source(self.reference)
        yield from self.listing.entries(after)
        check_source(self.reference)


def check_source(reference: SourceReference) -> None:
    """Raise `StoreUnavailable` if the folder or prefix that is listed is gone or empty.

    What a manifest names, and a container by itself, is missed where it is read.
    """
    if not reference.ordered and reference.pattern is None:
        return
    if reference.uri.startswith(S3_SCHEME):
        from cifar_ray.prediction.sources.s3_fetch import S3Fetcher

        S3Fetcher(S3Address.parse(reference.uri), fast=False).check()
    else:
        FolderFetcher(Path(reference.uri)).check()


def check_removed(reference: SourceReference, entry: Entry) -> None:
    """Raise `StoreUnavailable` if an image that is no longer listed went away with its disk."""
    if reference.kind == "folder":
        below = entry.key.encode() if entry.locator is None else entry.locator
        FolderFetcher(Path(reference.uri)).check_folder_of(below)
