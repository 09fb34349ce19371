"""A folder as a store of images: every file in the byte order of its key."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from glob import escape
from operator import itemgetter
from pathlib import Path
from urllib.parse import quote

from cifar_ray.config.labelling import LabellingConfig, SourceReference
from cifar_ray.errors import InputError, StoreUnavailable, printable
from cifar_ray.prediction.sources.base import (
    GONE,
    HIDDEN,
    Entry,
    Skipped,
    encode_key,
    is_hidden,
    other_kind,
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
        path = os.fsencode(self.root)
        try:
            root, names = _identity(path), _sorted_names(path)
        except OSError as error:
            raise _unreadable(path, "", error) from error
        if after is not None and not names:
            raise self._gone()  # An unplugged disk leaves its mount point behind, which is empty.
        try:
            yield from self._folder(names, path, None, "", [root], after)
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
        names: "list[_Name]",
        path: bytes,
        raw: bytes | None,
        key: str,
        ancestors: list[tuple[int, int]],
        after: str | None,
    ) -> Iterator[Entry | Skipped]:
        """Walk one folder; `raw` and `key` are its name below the root, as in `_Name`."""
        below = os.path.join(path, b"")
        # If so, a file's own name decides whether it is labelled, which is soon told.
        by_name = not (self.config.include or self.config.exclude or is_hidden(key))
        for name, is_folder, stored in names:
            child_key = key + name
            if after is not None and child_key <= after and not after.startswith(child_key):
                continue
            as_stored = name.encode() if stored is None else stored
            child_raw = None
            if stored is not None or raw is not None:
                child_raw = (key.encode() if raw is None else raw) + as_stored
            if is_folder:
                child = below + as_stored[:-1]
                yield from self._below(child, child_raw, child_key, ancestors, after)
                continue
            if child_key == after:
                continue
            if by_name and not name.startswith(HIDDEN):
                kind = other_kind(name)
            else:
                kind = skipped_kind(child_key, self.config)
            if kind is not None:
                yield Skipped(kind)
                continue
            try:
                status = os.stat(below + as_stored)
            except OSError:
                yield self._without_status(below + as_stored, child_raw, child_key, ancestors[0])
                continue
            yield _item(child_key, status, child_raw)

    def _below(
        self,
        path: bytes,
        raw: bytes | None,
        key: str,
        ancestors: list[tuple[int, int]],
        after: str | None,
    ) -> Iterator[Entry | Skipped]:
        """Walk a folder of a folder, unless it may be left out or is one of its own `ancestors`."""
        try:
            identity = _identity(path)
            inside = [] if identity in ancestors else _sorted_names(path)
        except OSError as error:
            yield self._left_out(path, key, error)
            return
        if identity in ancestors:
            yield Skipped("(link to a folder that holds it)")
            return
        yield from self._folder(inside, path, raw, key, [*ancestors, identity], after)

    def _left_out(self, path: bytes, key: str, error: OSError) -> Skipped:
        """Count a folder without permission as one file, if nothing in it would be labelled."""
        kind = skipped_folder_kind(key, self.folders)
        if kind is None or not isinstance(error, PermissionError):
            raise _unreadable(path, key, error) from error
        return Skipped(kind)

    def _without_status(
        self, path: bytes, raw: bytes | None, key: str, root: tuple[int, int]
    ) -> Entry | Skipped:
        """Return a dangling link with its own status, or what went away since with none.

        Both are listed all the same, and the reader says what is wrong with them.
        """
        try:
            status = os.lstat(path)
        except OSError:
            self._check(root)
            return Entry(key, GONE, 0, raw)
        return _item(key, status, raw)


_Name = tuple[str, bool, bytes | None]
"""A name as in a key, that of a folder with its `/`; whether it is a folder; and as it is stored,
or None where that is the same."""


def _sorted_names(path: bytes) -> list[_Name]:
    """Return a folder's names in the order of the keys below them: a folder sorts as `name/`."""
    names: list[_Name] = []
    with os.scandir(path) as scan:
        for entry in scan:
            raw, is_folder = entry.name, entry.is_dir()
            try:
                name, stored = raw.decode(), None
            except UnicodeDecodeError:
                name, stored = encode_key(raw).decode(), raw
            if is_folder:
                name, stored = name + "/", raw + b"/" if stored else None
            names.append((name, is_folder, stored))
    # In the order of code points, which is that of UTF-8's bytes.
    names.sort(key=itemgetter(0))
    return names


def _item(key: str, status: os.stat_result, raw: bytes | None) -> Entry | Skipped:
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        return Skipped("(device, pipe or socket)")
    size_bytes = status.st_size
    return Entry(key, f"{status.st_mtime_ns}-{size_bytes}", size_bytes, raw)


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


def file_uri(root: str, entry: Entry) -> str:
    """Return the `file://` uri that opens an entry below a folder."""
    below = entry.locator if entry.locator is not None else entry.key.encode()
    return _root_uri(root) + quote(below)


@lru_cache
def _root_uri(root: str) -> str:
    return "file://" + quote(os.fsencode(Path(root))) + "/"
