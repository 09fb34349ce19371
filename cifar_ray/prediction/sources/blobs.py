"""Random access to the files of a store: what manifests and containers are read through."""

import errno
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import quote

from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import ImageFault, InputError, StoreUnavailable, printable
from cifar_ray.prediction.sources.base import Listing, TransientFault
from cifar_ray.prediction.sources.folder import FolderListing
from cifar_ray.prediction.sources.folder_fetch import read_with_retries
from cifar_ray.storage import S3_SCHEME, S3Address

MAX_OPEN_FILES = 16


@dataclass(frozen=True, slots=True)
class Version:
    """One file of a store as it was listed; `name` as the store has it, below the root."""

    name: bytes
    version: str


@dataclass(frozen=True, slots=True)
class Blob(Version):
    """A file as it is found, with its size."""

    size_bytes: int


class Blobs(Protocol):
    """Files below a root that can be read at any offset; any number of threads may do so."""

    def where(self, name: bytes) -> str:
        """Return a file's path or uri as a user writes it, for messages."""

    def everything(self, folders: LabellingConfig) -> Listing:
        """Return the listing of all files below the root, hidden ones and other kinds too.

        `folders` brings the patterns by which folders without permission may be left out.
        """

    def look(self, name: bytes) -> Blob:
        """Return version and size; `InputError` if the file cannot be read."""

    def open(self, name: bytes) -> BinaryIO:
        """Open a file for seeking and buffered reading; `InputError` if that cannot be done."""

    def reopen(self, file: Version) -> BinaryIO:
        """Open a listed file; raises what `read_range` does."""

    def read_range(self, file: Version, offset: int, length: int) -> bytes:
        """Return `length` bytes, or fewer at the file's end.

        Raises `ImageFault` if the file is not the listed one or does not give these bytes,
        `StoreUnavailable` if it is gone. Reads come mostly in order, so that a store far away does
        well to fetch large blocks and to keep the last ones.
        """


EVERYTHING = LabellingConfig(include=("*",))


def blobs_below(folder: str) -> Blobs:
    """Return the files below a folder, or below a prefix of a bucket."""
    if folder.startswith(S3_SCHEME):
        # boto3 takes a third of a second to load.
        from cifar_ray.prediction.sources.s3_blobs import S3Blobs

        return S3Blobs(S3Address.parse(folder))
    return FolderBlobs(Path(folder))


def uri_below(folder: str, name: bytes) -> str:
    """Return the uri that opens a file; a key stands in it as it is."""
    if folder.startswith(S3_SCHEME):
        return f"{folder.rstrip('/')}/{name.decode()}"
    return f"file://{quote(os.fsencode(folder))}/{quote(name)}"


def split_file(uri: str) -> tuple[str, bytes]:
    """Return a file's folder, or prefix, and its name in there."""
    if uri.startswith(S3_SCHEME):
        folder, _, name = uri.rpartition("/")
        return folder, name.encode()
    path = Path(uri)
    return str(path.parent), os.fsencode(path.name)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that is the SOURCE, or that says what is in it."""

    blobs: Blobs
    name: bytes

    @classmethod
    def at(cls, uri: str) -> "SourceFile":
        """Return the file at a path or an `s3://` uri; nothing is opened yet."""
        folder, name = split_file(uri)
        return cls(blobs_below(folder), name)

    def __str__(self) -> str:
        """Return the path or uri."""
        return self.blobs.where(self.name)

    @property
    def extension(self) -> str:
        """Return it in small letters, with its dot."""
        return os.path.splitext(os.fsdecode(self.name))[1].lower()

    def open(self) -> BinaryIO:
        """Open the file; `InputError` if that cannot be done."""
        return self.blobs.open(self.name)


class FolderBlobs:
    """Files below a folder on this machine. The few used last stay open."""

    def __init__(self, root: Path) -> None:
        """Nothing is opened yet."""
        self.root = os.fsencode(root)
        self.opened: OrderedDict[bytes, BinaryIO] = OrderedDict()
        self.lock = threading.Lock()

    def where(self, name: bytes) -> str:
        """Return the path."""
        return os.fsdecode(self._path(name))

    def everything(self, folders: LabellingConfig) -> Listing:
        """Return the listing of the folder."""
        return FolderListing(Path(os.fsdecode(self.root)), EVERYTHING, folders)

    def look(self, name: bytes) -> Blob:
        """Return version and size."""
        try:
            status = os.stat(self._path(name))
        except OSError as error:
            raise _unreadable(self._path(name), error) from error
        return Blob(name, _version(status), status.st_size)

    def open(self, name: bytes) -> BinaryIO:
        """Open a file for reading."""
        try:
            return open(self._path(name), "rb")
        except OSError as error:
            raise _unreadable(self._path(name), error) from error

    def reopen(self, file: Version) -> BinaryIO:
        """Open a listed file."""
        try:
            opened = open(self._path(file.name), "rb")  # noqa: SIM115 -- the caller closes it
        except OSError as error:
            raise self._gone(file, error) from error
        _check(opened, file)
        return opened

    def read_range(self, file: Version, offset: int, length: int) -> bytes:
        """Return a range, from a file that stays open for the next one."""
        try:
            data = read_with_retries(self._read, file, offset, length)
        except OSError as error:
            raise self._gone(file, error) from error
        if data is None:
            raise TransientFault
        return data

    def _read(self, file: Version, offset: int, length: int) -> bytes:
        opened = self._opened(file.name)
        # A look at an open file costs a microsecond, and no image is taken from another file.
        _check(opened, file)
        if hasattr(os, "pread"):
            return os.pread(opened.fileno(), length, offset)
        with self.lock:  # Windows
            opened.seek(offset)
            return opened.read(length)

    def _opened(self, name: bytes) -> BinaryIO:
        """Return the open file. One that is dropped closes when its last reader lets go of it."""
        with self.lock:
            file = self.opened.pop(name, None)
            if file is None:
                file = open(self._path(name), "rb", buffering=0)  # noqa: SIM115 -- kept open
            self.opened[name] = file
            if len(self.opened) > MAX_OPEN_FILES:
                self.opened.popitem(last=False)
            return file

    def _path(self, name: bytes) -> bytes:
        return os.path.join(self.root, name)

    def _gone(self, file: Version, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(
            f"Cannot read {printable(os.fsdecode(self._path(file.name)))}, which holds the images: "
            f"{os.strerror(error.errno or errno.EIO)}. No image is blamed for it; bring it back "
            "and give the same command again."
        )


def _check(opened: BinaryIO, file: Version) -> None:
    if _version(os.fstat(opened.fileno())) != file.version:
        raise ImageFault("changed", "changed between listing and reading")


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}"


def _unreadable(path: bytes, error: OSError) -> InputError:
    return InputError(
        f"Cannot read {printable(os.fsdecode(path))}: {os.strerror(error.errno or errno.EIO)}. "
        "Make it readable, or give another SOURCE."
    )
