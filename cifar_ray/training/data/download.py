"""CIFAR-10 from its makers, in its binary form, which needs no unpickling to be read.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html, where the MD5 is published.
"""

import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cifar_ray.errors import InputError
from cifar_ray.models.cache import cache_folder

READ_BYTES = 2**18
TIMEOUT_S = 60
DATA = "data"
BATCHES = "cifar-10-batches-bin"
FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")


@dataclass(frozen=True, slots=True)
class Archive:
    """A file on a server, and how to know it."""

    url: str
    size_bytes: int
    md5: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.url).name


CIFAR10_BINARY = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    size_bytes=170_052_171,
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
Progress = Callable[[int, int], None]
"""Called with the bytes that are here, and all there are."""


def download_cifar10(
    folder: Path | None = None,
    progress: Progress | None = None,
    archive: Archive = CIFAR10_BINARY,
) -> Path:
    """Return the folder `cifar-10-batches-bin` with its six files, downloaded if it is not there.

    It lies in `folder`, by default `data` in the cache. A download that was cut off goes on where
    it ended. `InputError` without a network, or if what comes is not the archive.
    """
    folder = folder or cache_folder() / DATA
    batches = folder / BATCHES
    if batches.is_dir():
        return batches
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{archive.name}.part"
    try:
        _fetch(archive, partial, progress or (lambda done, total: None))
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise InputError(
            f"Cannot download {archive.url}: {reason}. Give the same command again to go on, or "
            f"download it elsewhere and unpack it into the folder that $CIFAR_RAY_DATA names."
        ) from error
    _check(archive, partial)
    _unpack(partial, batches)
    partial.unlink()
    return batches


def _fetch(archive: Archive, partial: Path, progress: Progress) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    if done >= archive.size_bytes:
        return
    request = urllib.request.Request(archive.url)
    if done:
        request.add_header("Range", f"bytes={done}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        goes_on = response.status == http.client.PARTIAL_CONTENT
        done = done if goes_on else 0
        with partial.open("ab" if goes_on else "wb") as file:
            while data := response.read(READ_BYTES):
                file.write(data)
                done += len(data)
                progress(done, archive.size_bytes)
    if done < archive.size_bytes:
        raise OSError(f"it ended after {done} of {archive.size_bytes} bytes")


def _check(archive: Archive, path: Path) -> None:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if (sha256, md5) != (archive.sha256, archive.md5):
        path.unlink()
        raise InputError(
            f"What {archive.url} gave is not the archive: its SHA-256 is {sha256}, not "
            f"{archive.sha256}. It is deleted. Is there a proxy or a sign-in page on the way?"
        )


def _unpack(path: Path, batches: Path) -> None:
    """Take the six files out by name, so that nothing else in the archive reaches the disk."""
    unfinished = batches.with_name(f".{batches.name}.{uuid.uuid4().hex[:8]}")
    unfinished.mkdir()
    try:
        with tarfile.open(path, "r:gz") as tar:
            for name in FILES:
                member = tar.extractfile(f"{BATCHES}/{name}")
                if member is None:
                    raise InputError(f"{path} holds {BATCHES}/{name} in no readable form.")
                with member, (unfinished / name).open("wb") as file:
                    shutil.copyfileobj(member, file)
        unfinished.rename(batches)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
