"""A manifest as a store of images: a file that names one a row, in the order as written.

Keys are the uris as written. All of them lie below `root`, so that a manifest from elsewhere cannot
have any file of this machine read. The manifest may lie in a bucket, and so may the images:
`s3_manifest.py` looks them up.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pyarrow as pa

from cifar_ray.config.labelling import LabellingConfig, SourceReference
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.sources.base import GONE, Entry, Skipped, encode_key, skipped_kind
from cifar_ray.prediction.sources.blobs import SourceFile
from cifar_ray.prediction.sources.columns import carried_columns
from cifar_ray.prediction.sources.folder import file_uri
from cifar_ray.prediction.sources.folder_fetch import FolderFetcher
from cifar_ray.prediction.sources.manifest_rows import (
    URI,
    Row,
    RowReader,
    csv_columns,
    csv_rows,
    jsonl_columns,
    jsonl_rows,
    no_uri,
    parquet_columns,
    parquet_rows,
    wrong,
)

SAMPLE_BYTES = 2**16
NUM_SAMPLES = 1024
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_READERS: dict[str, tuple[RowReader, Callable[[SourceFile], dict[str, pa.DataType]]]] = {
    ".csv": (csv_rows, csv_columns),
    ".jsonl": (jsonl_rows, jsonl_columns),
    ".parquet": (parquet_rows, parquet_columns),
}
EXTENSIONS = tuple(_READERS)


def find_manifest(
    source: SourceFile, root: str | None, columns: tuple[str, ...]
) -> SourceReference:
    """Return the reference of a manifest; `InputError` if it has no column `uri`."""
    _, columns_of = _READERS[source.extension]
    available = columns_of(source)
    if URI not in available:
        raise no_uri(source, list(available))
    return SourceReference(
        kind="manifest",
        uri=str(source),
        root=root,
        digest=file_digest(source),
        carried=carried_columns(columns, available, str(source)),
    )


def rows_of(reference: SourceReference, after: str | None) -> Iterator[Row]:
    """Yield a manifest's rows behind a cursor; `InputError` with the number of a row that is none.

    Each has a `uri`, of which no more is known than that it is text.
    """
    source = SourceFile.at(reference.uri)
    rows, _ = _READERS[source.extension]
    for row in rows(source, reference.carried, after):
        if not isinstance(row.uri, str) or not row.uri:
            raise wrong(source, row.number, f"has no `{URI}`")
        yield row


def misplaced(reference: SourceReference, row: Row, root: str, error: ValueError) -> InputError:
    """Return the error for a row whose uri is none below the root."""
    return wrong(
        SourceFile.at(reference.uri),
        row.number,
        f"names {printable(str(row.uri)[:200])}, which {error}. Allowed are paths and uris below "
        f"{printable(root)}; --root names another folder, or s3://BUCKET",
    )


def file_digest(source: SourceFile) -> str:
    """SHA-256 (hex) of size and content; of a file over 64 MB, of 1,024 places spread over it.

    A run of a billion rows shall not wait until all of them are read.
    """
    with source.open() as file:
        size_bytes = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256(str(size_bytes).encode())
        step = max(SAMPLE_BYTES, size_bytes // NUM_SAMPLES)
        for offset in (*range(0, size_bytes, step), max(0, size_bytes - SAMPLE_BYTES)):
            file.seek(offset)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """A manifest of files on this machine."""

    reference: SourceReference
    config: LabellingConfig

    @property
    def root(self) -> Path:
        """The folder below which all images lie."""
        return Path(self._root)

    @property
    def _root(self) -> str:
        assert self.reference.root is not None, "find_manifest gives one"
        return self.reference.root

    def listing(self, range_number: int) -> "ManifestListing":
        """Return the listing; a manifest is one range."""
        return ManifestListing(self.reference, self.root, self.config)

    def fetcher(self) -> FolderFetcher:
        """Return a reader."""
        return FolderFetcher(self.root)

    def uri(self, entry: Entry) -> str:
        """Return the `file://` uri that opens an image, however the manifest writes it."""
        return file_uri(self._root, entry)


@dataclass(frozen=True, slots=True)
class ManifestListing:
    """The rows of a manifest, each looked up below the root."""

    reference: SourceReference
    root: Path
    config: LabellingConfig

    def entries(self, after: str | None) -> Iterator[Entry | Skipped]:
        """Yield a row each; one whose file is not there too, for its row to say so.

        Raises `InputError` with the row's number for what is no uri below the root.
        """
        places = Places(self.root)
        control = FolderFetcher(self.root)
        for row in rows_of(self.reference, after):
            item = self._item(row, places)
            if isinstance(item, Entry) and item.version == GONE:
                control.check()
            yield item

    def _item(self, row: Row, places: "Places") -> Entry | Skipped:
        uri = str(row.uri)
        try:
            key = uri.encode()
            below = places.below(uri)
        except ValueError as error:
            raise misplaced(self.reference, row, str(self.root), error) from None
        skipped = skipped_kind(encode_key(below).decode(), self.config)
        if skipped is not None:
            return Skipped(skipped)
        try:
            status = os.stat(os.path.join(places.root, below))
        except OSError:
            version, size_bytes = GONE, 0
        else:
            if not stat.S_ISREG(status.st_mode):
                return Skipped("(folder, device, pipe or socket)")
            version, size_bytes = f"{status.st_mtime_ns}-{status.st_size}", status.st_size
        locator = None if below == key else below
        return Entry(uri, version, size_bytes, locator, row.position, row.carried)


class Places:
    """Where uris lead, below a root."""

    def __init__(self, root: Path) -> None:
        """Take the root under the name that it was given, and under its real one."""
        self.root = os.fsencode(root)
        self.prefixes = {
            os.path.join(self.root, b""),
            os.path.join(os.path.realpath(self.root), b""),
        }

    def below(self, uri: str) -> bytes:
        """Return the path below the root; `ValueError` says why there is none."""
        path = self._path(uri)
        if path.startswith(b"/"):
            prefix = next((p for p in self.prefixes if path.startswith(p)), None)
            if prefix is None:
                raise ValueError("lies outside of it")
            path = path[len(prefix) :]
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise ValueError("has a part `..`")
        if not parts or b"\0" in path:
            raise ValueError("names no file")
        return b"/".join(parts)

    @staticmethod
    def _path(uri: str) -> bytes:
        if not _SCHEME.match(uri):
            return uri.encode()
        if not uri.lower().startswith("file://"):
            raise ValueError("has a scheme that is not read here")
        host, slash, path = uri[len("file://") :].partition("/")
        if host not in ("", "localhost"):
            raise ValueError("is on another machine")
        return unquote_to_bytes(slash + path)
