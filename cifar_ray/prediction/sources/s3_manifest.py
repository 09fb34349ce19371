"""A manifest whose images lie in a bucket.

A uri is `s3://BUCKET/KEY`, with the key as it is, or a path below the root. Without `--root`, paths
lie below the manifest's own prefix, and `s3://` uris anywhere in its bucket. Each object is asked
for its ETag and size while the listing goes on.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from cifar_ray.config.labelling import LabellingConfig, SourceReference
from cifar_ray.errors import ImageFault, StoreUnavailable
from cifar_ray.prediction.sources.base import (
    DOT_SEGMENTS,
    FOLDER_MARKERS,
    GONE,
    Entry,
    Skipped,
    TransientFault,
    skipped_kind,
)
from cifar_ray.prediction.sources.blobs import split_file
from cifar_ray.prediction.sources.manifest_file import misplaced, rows_of
from cifar_ray.prediction.sources.manifest_rows import Row
from cifar_ray.prediction.sources.s3_fetch import S3Fetcher
from cifar_ray.storage import S3_SCHEME
from cifar_ray.storage.s3_address import S3Address

PARALLEL_LOOKS = 32
LOOKED_AHEAD = 256
"""Rows whose objects are being asked for."""


@dataclass(frozen=True, slots=True)
class S3ManifestSource:
    """A manifest of objects."""

    reference: SourceReference
    config: LabellingConfig

    @property
    def places(self) -> "S3Places":
        """Where its uris lead."""
        if self.reference.root is not None:
            root = S3Address.parse(self.reference.root)
            return S3Places(root, root.prefix)
        own = S3Address.parse(split_file(self.reference.uri)[0])
        return S3Places(S3Address(own.bucket, ""), own.prefix)

    def listing(self, range_number: int) -> "S3ManifestListing":
        """Return the listing; a manifest is one range."""
        return S3ManifestListing(self.reference, self.places, self.config)

    def fetcher(self) -> S3Fetcher:
        """Return a reader."""
        return S3Fetcher(self.places.root)

    def uri(self, entry: Entry) -> str:
        """Return the `s3://` uri that opens an image, however the manifest writes it."""
        root = self.places.root
        below = entry.key if entry.locator is None else entry.locator.decode()
        return f"{S3_SCHEME}{root.bucket}/{root.prefix}{below}"


@dataclass(frozen=True, slots=True)
class S3Places:
    """Where uris lead: objects below `root`; a path begins at `base`, a prefix below it."""

    root: S3Address
    base: str

    def below(self, uri: str) -> str:
        """Return the key below the root; `ValueError` says why there is none."""
        if uri.startswith(S3_SCHEME):
            bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
            if bucket != self.root.bucket or not key.startswith(self.root.prefix):
                raise ValueError("lies outside of it")
        elif "://" in uri or uri.startswith("/"):
            raise ValueError("is no place in the bucket")
        else:
            key = self.base + uri.removeprefix("./")
        if not DOT_SEGMENTS.isdisjoint(key.split("/")):
            raise ValueError("has a part `.` or `..`")
        below = key.removeprefix(self.root.prefix)
        if not below or below.endswith(FOLDER_MARKERS):
            raise ValueError("names no object")
        return below


@dataclass(frozen=True, slots=True)
class S3ManifestListing:
    """The rows of a manifest, each object asked for, many at a time."""

    reference: SourceReference
    places: S3Places
    config: LabellingConfig

    def entries(self, after: str | None) -> Iterator[Entry | Skipped]:
        """Yield a row each; one whose object is not there too, for its row to say so.

        Raises `InputError` with the row's number for what is no uri below the root.
        """
        fetcher = S3Fetcher(self.places.root)
        waiting: deque[Skipped | Future[Entry]] = deque()
        threads = ThreadPoolExecutor(PARALLEL_LOOKS, "look")
        try:
            for row in rows_of(self.reference, after):
                below = self._below(row)
                skipped = skipped_kind(self._shown(below), self.config)
                waiting.append(
                    Skipped(skipped) if skipped else threads.submit(_entry, fetcher, row, below)
                )
                if len(waiting) > LOOKED_AHEAD:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _below(self, row: Row) -> str:
        try:
            return self.places.below(str(row.uri))
        except ValueError as error:
            root = self.places.root
            raise misplaced(self.reference, row, root.uri, error) from None

    def _shown(self, below: str) -> str:
        """Return what the rules of skipping look at: the path from where paths begin."""
        return below.removeprefix(self.places.base.removeprefix(self.places.root.prefix))


def _result(item: "Skipped | Future[Entry]") -> Entry | Skipped:
    return item if isinstance(item, Skipped) else item.result()


def _entry(fetcher: S3Fetcher, row: Row, below: str) -> Entry:
    uri = str(row.uri)
    locator = None if below == uri else below.encode()
    try:
        version, size_bytes = fetcher.look(below)
    except TransientFault:
        raise StoreUnavailable(
            f"{fetcher.address.uri} does not say what it has. The listing stopped; give the same "
            "command again to go on behind its last row."
        ) from None
    except ImageFault:
        # Gone, denied, …: the reader says what is wrong with it.
        version, size_bytes = GONE, 0
    return Entry(uri, version, size_bytes, locator, row.position, row.carried)
