"""Reading files of a folder, and telling a fault of an image from a fault of the disk."""

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from cifar_ray.errors import ImageFault, StoreUnavailable, printable
from cifar_ray.prediction.sources.base import MAX_IMAGE_BYTES, Entry, TransientFault

RETRY_DELAYS_S = (0.05, 0.2, 1.0, None)
"""After each try; None after the last one."""
READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)
TRANSIENT = frozenset(
    {
        errno.EIO,
        errno.EAGAIN,
        errno.EINTR,
        errno.EBUSY,
        errno.ETIMEDOUT,
        errno.ENXIO,
        errno.ENODEV,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        getattr(errno, "ESTALE", errno.EIO),
        getattr(errno, "EREMOTEIO", errno.EIO),
    }
)
_Arguments = ParamSpec("_Arguments")


def read_with_retries(
    read: Callable[_Arguments, bytes], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> bytes | None:
    """Return what `read` gives; None when it only met errors that may pass, to the last try.

    Raises the `OSError` that no retry would mend.
    """
    for delay_s in RETRY_DELAYS_S:
        try:
            return read(*args, **kwargs)
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
        if delay_s is not None:
            time.sleep(delay_s)
    return None


def _read_listed(path: bytes, version: str) -> bytes:
    """Read a file that is still the listed one."""
    # The system's own calls: for a small image, a file object costs as much as its decoding.
    descriptor = os.open(path, READ_ONLY)
    try:
        status = os.fstat(descriptor)
        size_bytes = status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise ImageFault("changed", "no longer a file")
        if f"{status.st_mtime_ns}-{size_bytes}" != version:
            raise ImageFault("changed", "changed between listing and reading")
        if size_bytes > MAX_IMAGE_BYTES:
            raise ImageFault("too_large", f"more than {MAX_IMAGE_BYTES} bytes")
        data = os.read(descriptor, size_bytes)
        while len(data) < size_bytes:  # what network disks may give
            more = os.read(descriptor, size_bytes - len(data))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(descriptor)


class FolderFetcher:
    """Reads images below a folder. The system reads ahead by itself, and threads would not help."""

    parallel_reads = 1

    def __init__(self, root: Path) -> None:
        """Remember the folder and the disk it is on, so that an unplugged one is noticed."""
        self.root = os.fsencode(root)
        self.prefix = os.path.join(self.root, b"")
        self.device = self._device()

    def fetch(self, entry: Entry) -> bytes:
        """Return the bytes; `ImageFault` with the row's status, or `StoreUnavailable`."""
        below = entry.locator if entry.locator is not None else entry.key.encode()
        try:
            data = read_with_retries(_read_listed, self.prefix + below, entry.version)
        except OSError as error:
            raise self._permanent(error, below) from None
        if data is None:
            self.check()
            raise TransientFault
        return data

    def _permanent(self, error: OSError, below: bytes) -> ImageFault:
        self.check()
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            self.check_folder_of(below)
            return ImageFault("not_found", "listed, but not there when it was read")
        if error.errno in (errno.EACCES, errno.EPERM):
            return ImageFault("denied", "the store denies reading it")
        return ImageFault("fetch_failed", "the store cannot read it")

    def check(self) -> None:
        """Do a control read of the store; `StoreUnavailable` if the store itself is gone.

        An unplugged disk leaves its mount point behind as an empty folder of another device.
        """
        if self._device() != self.device or self.device is None:
            raise StoreUnavailable(
                f"The images' folder {os.fsdecode(self.root)} is gone or empty. "
                "No image is blamed for it; bring it back and give the same command again."
            )

    def check_folder_of(self, below: bytes) -> None:
        """Do a control read of a missing image's folder; `StoreUnavailable` if a disk was there.

        A disk that was mounted below the root leaves an empty folder behind, one that was linked a
        link that leads nowhere. A folder that somebody deleted leaves neither.
        """
        folder = self.root
        for name in below.split(b"/")[:-1]:
            deeper = os.path.join(folder, name)
            if not os.path.isdir(deeper):
                if os.path.islink(deeper):
                    raise _unplugged(deeper, "is a link that leads nowhere")
                break
            folder = deeper
        if _is_empty(folder):
            raise _unplugged(folder, "is empty")

    def _device(self) -> int | None:
        try:
            with os.scandir(self.root) as scan:
                if next(scan, None) is None:
                    return None
            return os.stat(self.root).st_dev
        except OSError:
            return None


def _is_empty(folder: bytes) -> bool:
    try:
        with os.scandir(folder) as scan:
            return next(scan, None) is None
    except OSError:
        return False  # One that may not be listed is there.


def _unplugged(folder: bytes, what: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"The folder {printable(os.fsdecode(folder))} {what}, as an unplugged disk leaves it. No "
        "image is blamed for it; bring it back and give the same command again. If its images were "
        "meant to go, delete it as well."
    )
