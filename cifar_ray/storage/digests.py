"""Digests of files in a store, in constant memory."""

import hashlib
from dataclasses import dataclass

from cifar_ray.storage.base import Store

READ_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file's size, and SHA-256 of its bytes."""

    size_bytes: int
    sha256: bytes


def file_digest(store: Store, name: str) -> FileDigest:
    """Read a file for its digest; `FileNotFoundError` if there is none."""
    digest, size_bytes = hashlib.sha256(), 0
    with store.open(name) as file:
        while chunk := file.read(READ_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    return FileDigest(size_bytes, digest.digest())
