"""A folder as a store of images: every file in the byte order of its key."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from cifar_ray.config.labelling import LabellingConfig, SourceReference
from cifar_ray.errors import InputError, StoreUnavailable, printable
from cifar_ray.prediction.sources.base import (
    GONE,
    Entry,
    Skipped,
    encode_key,
    skipped_folder_kind,
    skipped_kind,
)
from cifar_ray.prediction.sources.folder_fetch import FolderFetcher


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder on this machine, or on a disk that it shares."""

    reference: SourceReference
    config: LabellingConfig

    @property
    def root(self) -> Path:
        """The folder."""
        return Path(self.reference.uri)

    def listing(self, range_number: int) -> "FolderListing":
        """Return the listing; a folder has one range."""
        return FolderListing(self.root, self.config)

    def fetcher(self) -> FolderFetcher:
        """Return a reader."""
        return FolderFetcher(self.root)

    def uri(self, entry: Entry) -> str:
        """Return the `file://` uri that opens an image."""
        return file_uri(self.reference.uri, entry)


class FolderListing:
    """A folder and all below it. Links are followed, but never into a folder that holds them."""

    def __init__(
        self, root: Path, config: LabellingConfig, folders: LabellingConfig | None = None
    ) -> None:
        """`config` brings the patterns of `--include` and `--exclude`.

        `folders` brings those by which a folder without permission may be left out, if others.
        """
        self.root = root
        self.config = config
        self.folders = folders or config

    def entries(self, after: str | None) -> Iterator[Entry | Skipped]:
        """Yield in the byte order of keys.

        Raises `InputError` for a folder that cannot be read and is not left out,
        `StoreUnavailable` if all is gone: an unplugged disk must not leave a listing of files that
        went away.
        """
        start = None if after is None else after.encode()
        path = os.fsencode(self.root)
        try:
            root, names = _identity(path), _sorted_names(path)
        except OSError as error:
            raise _unreadable(path, "", error) from error
        if after is not None and not names:
            raise self._gone()  # An unplugged disk leaves its mount point behind, which is empty.
        try:
            for item in self._folder(names, path, b"", b"", [root], start):
                if isinstance(item, Entry) and item.version == GONE:
                    self._check(root)
                yield item
            self._check(root)
        except InputError:
            self._check(root)
            raise

    def _check(self, root: tuple[int, int]) -> None:
        """Raise `StoreUnavailable` unless the root is the folder that it was."""
        path = os.fsencode(self.root)
        with suppress(OSError):
            if os.path.isdir(path) and _identity(path) == root:
                return
        raise self._gone()

    def _gone(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"The images' folder {printable(str(self.root))} went away while it was listed. "
            "Bring it back and give the same command again."
        )

    def _folder(
        self,
        names: "list[tuple[_Name, bool]]",
        path: bytes,
        raw: bytes,
        key: bytes,
        ancestors: list[tuple[int, int]],
        after: bytes | None,
    ) -> Iterator[Entry | Skipped]:
        """Walk one folder; `raw` and `key` are its name below the root, as stored and as a key."""
        below = os.path.join(path, b"")
        for name, is_folder in names:
            child_key = key + name.key
            if after is not None and child_key <= after and not after.startswith(child_key):
                continue
            child = below + name.raw
            if not is_folder:
                if child_key != after:
                    yield self._file(child, raw + name.raw, child_key.decode())
                continue
            try:
                identity = _identity(child)
                inside = [] if identity in ancestors else _sorted_names(child)
            except OSError as error:
                yield self._left_out(child, child_key.decode(), error)
                continue
            if identity in ancestors:
                yield Skipped("(link to a folder that holds it)")
                continue
            yield from self._folder(
                inside, child, raw + name.raw + b"/", child_key, [*ancestors, identity], after
            )

    def _left_out(self, path: bytes, key: str, error: OSError) -> Skipped:
        """Count a folder without permission as one file, if nothing in it would be labelled."""
        kind = skipped_folder_kind(key, self.folders)
        if kind is None or not isinstance(error, PermissionError):
            raise _unreadable(path, key, error) from error
        return Skipped(kind)

    def _file(self, path: bytes, raw: bytes, key: str) -> Entry | Skipped:
        skipped = skipped_kind(key, self.config)
        if skipped is not None:
            return Skipped(skipped)
        status = _status(path)
        if status is None:
            return Entry(key, GONE, 0, _locator(raw, key))
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            return Skipped("(device, pipe or socket)")
        version = f"{status.st_mtime_ns}-{status.st_size}"
        return Entry(key, version, status.st_size, _locator(raw, key))


class _Name(NamedTuple):
    raw: bytes
    key: bytes


def _sorted_names(path: bytes) -> list[tuple[_Name, bool]]:
    """Return a folder's names in the order of the keys below them: a folder sorts as `name/`."""
    with os.scandir(path) as scan:
        found = [(entry.name, entry.is_dir()) for entry in scan]
    names = [
        (_Name(raw, encode_key(raw) + (b"/" if is_folder else b"")), is_folder)
        for raw, is_folder in found
    ]
    return sorted(names, key=lambda name: name[0].key)


def _identity(path: bytes) -> tuple[int, int]:
    """Return what tells a folder from any other, such as an empty mount point in its place."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _unreadable(path: bytes, key: str, error: OSError) -> InputError:
    remedy = "Make it readable"
    if key and isinstance(error, PermissionError):
        remedy += f", or leave it out with --exclude '{printable(escape(key))}*'"
    return InputError(
        f"Cannot read the folder {printable(os.fsdecode(path))}: "
        f"{os.strerror(error.errno or 0)}. {remedy}."
    )


def _status(path: bytes) -> os.stat_result | None:
    """Return a file's status; a dangling link's own; None for what went away since.

    Both are listed all the same, and the reader says what is wrong with them.
    """
    for status in (os.stat, os.lstat):
        try:
            return status(path)
        except OSError:
            continue
    return None


def file_uri(root: str, entry: Entry) -> str:
    """Return the `file://` uri that opens an entry below a folder."""
    below = entry.locator if entry.locator is not None else entry.key.encode()
    return _root_uri(root) + quote(below)


@lru_cache
def _root_uri(root: str) -> str:
    return "file://" + quote(os.fsencode(Path(root))) + "/"


def _locator(raw: bytes, key: str) -> bytes | None:
    return None if raw == key.encode() else raw
