"""A folder on this machine as the place of a run.

A write is whole or not at all: a file under `_tmp/`, fsync, then a rename or a link to its name.
"""

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cifar_ray.errors import InputError, printable
from cifar_ray.storage.base import TEMPORARY
from cifar_ray.storage.folder_faults import folder_faults


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
        with self._faults(), suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(self.root).st_mode):
                raise InputError(
                    f"--out {printable(self.uri)} is a file. Give a new or empty folder."
                )

    def read(self, name: str) -> bytes:
        """Return a file's bytes; `FileNotFoundError` if there is none."""
        with self._faults():
            return (self.root / name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; `FileNotFoundError` if there is none."""
        with self._faults():
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

    def note(self, name: str, data: bytes) -> bool:
        """Create a file of a few bytes, but one that a power cut may undo: to wait costs most."""
        path = self.root / name
        with self._faults():
            try:
                file = _open_new(path)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = _open_new(path)
            if file is None:
                return False
            with file:
                file.write(data)
        return True

    def exists(self, name: str) -> bool:
        """Tell whether a file exists."""
        with self._faults():
            return (self.root / name).exists()

    def names(self, folder: str, prefix: str = "") -> list[str]:
        """Return the names directly in `folder` that begin with `prefix`, in order, or none."""
        with self._faults(), suppress(FileNotFoundError):
            found = os.listdir(self.root / folder)
            return sorted(name for name in found if name.startswith(prefix))
        return []

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
        with self._faults():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def move(self, name: str, to: str) -> None:
        """Move a file, in place of an older one; `FileNotFoundError` if there is none."""
        with self._faults():
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
        with self._faults():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)

    def _faults(self) -> AbstractContextManager[None]:
        return folder_faults(self.root)

    def _target(self, name: str) -> Path:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def _open_new(path: Path) -> BinaryIO | None:
    try:
        return open(path, "xb", buffering=0)
    except FileExistsError:
        return None


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
