"""A folder on this machine as the place of a run.

A write is whole or not at all: a file under `_tmp/`, fsync, then a rename or a link to its name.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cifar_ray.errors import InputError, Unfinished, printable
from cifar_ray.storage.base import TEMPORARY

_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


class FolderStore:
    """A folder on this machine or on a disk that it shares."""

    def __init__(self, root: Path) -> None:
        """Name the folder; it is made at the first write."""
        self.root = root.absolute()

    @property
    def uri(self) -> str:
        """The folder."""
        return str(self.root)

    def check(self) -> None:
        """Raise `InputError` if there is a file in its place."""
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"--out {printable(self.uri)} is a file. Give a new or empty folder.")

    def read(self, name: str) -> bytes:
        """Return a file's bytes; `FileNotFoundError` if there is none."""
        return (self.root / name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; `FileNotFoundError` if there is none."""
        return open(self.root / name, "rb")

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically, in place of an older one."""
        with self.staged(name) as path:
            path.write_bytes(data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file atomically unless one exists; tell whether it was written."""
        with self._temporary() as path:
            path.write_bytes(data)
            _sync(path)
            return _link_unless_exists(path, self._target(name))

    def exists(self, name: str) -> bool:
        """Tell whether a file exists."""
        return (self.root / name).exists()

    def names(self, folder: str, prefix: str = "") -> list[str]:
        """Return the names directly in `folder` that begin with `prefix`, in order, or none."""
        try:
            found = os.listdir(self.root / folder)
        except FileNotFoundError:
            return []
        return sorted(name for name in found if name.startswith(prefix))

    def written(self, folder: str, prefix: str = "") -> list[tuple[str, float]]:
        """Return what `names` does, each with the time at which it was written (Unix seconds)."""
        found = []
        for name in self.names(folder, prefix):
            # Gone since: replaced or repaired.
            with suppress(FileNotFoundError):
                found.append((name, (self.root / folder / name).stat().st_mtime))
        return found

    def delete(self, name: str) -> None:
        """Delete a file or a folder with all in it; nothing happens if there is none."""
        path = self.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def move(self, name: str, to: str) -> None:
        """Move a file, in place of an older one; `FileNotFoundError` if there is none."""
        target = self._target(to)
        os.replace(self.root / name, target)
        _sync_folder(target.parent)

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """Give a path to write to; at the end of the block it becomes `name`, atomically."""
        with self._temporary() as path:
            yield path
            _sync(path)
            target = self._target(name)
            os.replace(path, target)
            _sync_folder(target.parent)

    def sweep(self) -> None:
        """Delete the unfinished files."""
        self.delete(TEMPORARY)

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        path = self.root / TEMPORARY / uuid.uuid4().hex
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path
        except OSError as error:
            if error.errno in _OUT_OF_SPACE:
                raise Unfinished(
                    f"No space left on the disk of {self.root}. What is written is whole; "
                    "free some space and give the same command again to go on."
                ) from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise InputError(
                    f"Cannot write to {self.root}: {os.strerror(error.errno)}. "
                    "Choose a folder that you may write to."
                ) from error
            raise
        finally:
            path.unlink(missing_ok=True)

    def _target(self, name: str) -> Path:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def _link_unless_exists(path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except FileExistsError:
        return False
    except OSError:
        # A file system without hard links (exFAT, some network disks).
        if target.exists():
            return False
        os.replace(path, target)
    _sync_folder(target.parent)
    return True


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
