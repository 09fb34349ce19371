"""Objects of a bucket, read at any offset: containers and manifests that lie in S3.

What is read in order comes in large blocks, of which the next is under way while one is used; other
reads get what they ask for. Every request has If-Match, so that no image is taken from another
version of its container than the one that was listed.
"""

import io
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, BinaryIO, NoReturn, cast

from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import ImageFault, InputError, StoreUnavailable
from cifar_ray.prediction.sources.base import Listing
from cifar_ray.prediction.sources.blobs import EVERYTHING, Blob, Version, uri_below
from cifar_ray.prediction.sources.s3 import S3Listing
from cifar_ray.storage.s3_address import S3Address
from cifar_ray.storage.s3_bucket import PATIENCE_S, Bucket
from cifar_ray.storage.s3_faults import FaultKind, S3Fault, explain
from cifar_ray.storage.s3_read import PARTIAL_CONTENT, look_at_object

BLOCK_BYTES = 4 * 2**20
BLOCKS_KEPT = 6
"""Of all files together: the threads of a worker read side by side, not one behind the other."""
PARALLEL_REQUESTS = 4
FILES_FOLLOWED = 16
"""Of which it is known where the last read ended."""
BUFFER_BYTES = 2**16
"""Read from an opened object at a time."""
_OF_THE_STORE = (FaultKind.TRANSIENT, FaultKind.CREDENTIALS, FaultKind.NO_BUCKET)


class S3Blobs:
    """Objects below a prefix."""

    def __init__(self, address: S3Address, patience_s: float = PATIENCE_S) -> None:
        """Nothing is asked of the store yet; `patience_s` is how long faults are waited out."""
        self.address = address
        self.bucket = Bucket(address.bucket, patience_s)
        self.blocks: OrderedDict[tuple[Version, int], Future[bytes]] = OrderedDict()
        self.ends: OrderedDict[Version, int] = OrderedDict()
        self.lock = threading.Lock()
        self.threads = ThreadPoolExecutor(PARALLEL_REQUESTS, "blocks")

    def where(self, name: bytes) -> str:
        """Return the uri."""
        return uri_below(self.address.uri, name)

    def everything(self, folders: LabellingConfig) -> Listing:
        """Return the listing of the prefix; all keys of a bucket can be listed, or none."""
        return S3Listing(self.address, EVERYTHING)

    def look(self, name: bytes) -> Blob:
        """Return version and size; `StoreUnavailable` where no file is to blame."""
        try:
            etag, size_bytes = look_at_object(self.bucket, self._key(name))
        except S3Fault as fault:
            reason = explain(fault, self.where(name), self.bucket.endpoint)
            if fault.kind in _OF_THE_STORE:
                raise StoreUnavailable(f"{reason} Give the same command again.") from None
            raise InputError(f"{reason} Bring it back, or give another SOURCE.") from None
        return Blob(name, etag, size_bytes)

    def open(self, name: bytes) -> BinaryIO:
        """Open an object for reading; `StoreUnavailable` if it is replaced while it is read."""
        return self._open(self.look(name), listed=False)

    def reopen(self, file: Version) -> BinaryIO:
        """Open a listed object."""
        try:
            found = self.look(file.name)
        except InputError as error:
            raise StoreUnavailable(f"{error} No image is blamed for it.") from None
        if found.version != file.version:
            raise _changed()
        return self._open(found, listed=True)

    def _open(self, blob: Blob, listed: bool) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_OpenObject(self, blob, listed), BUFFER_BYTES))

    def read_range(self, file: Version, offset: int, length: int) -> bytes:
        """Return a range of a listed object."""
        # A Blob is not equal to the Version that it is, and both are used.
        file = Version(file.name, file.version)
        if length <= 0:
            return b""
        if not self._goes_on(file, offset, length):
            return self._get(file, offset, length)
        pieces = []
        for number in range(offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1):
            block = self._block(file, number)
            start = number * BLOCK_BYTES
            pieces.append(block[max(0, offset - start) : offset + length - start])
            if len(block) < BLOCK_BYTES:
                break
        return b"".join(pieces)

    def _goes_on(self, file: Version, offset: int, length: int) -> bool:
        """Tell whether a read is near the end of the one before."""
        with self.lock:
            end = self.ends.pop(file, None)
            self.ends[file] = offset + length
            if len(self.ends) > FILES_FOLLOWED:
                self.ends.popitem(last=False)
        return end is not None and abs(offset - end) < BLOCK_BYTES

    def _block(self, file: Version, number: int) -> bytes:
        """Return a block, and have the next one fetched."""
        with self.lock:
            block = self._fetched(file, number)
            self._fetched(file, number + 1)
            while len(self.blocks) > BLOCKS_KEPT:
                self.blocks.popitem(last=False)
        return block.result()

    def _fetched(self, file: Version, number: int) -> "Future[bytes]":
        block = self.blocks.pop((file, number), None)
        if block is None or (block.done() and block.exception()):
            block = self.threads.submit(self._get, file, number * BLOCK_BYTES, BLOCK_BYTES)
        self.blocks[file, number] = block
        return block

    def _get(self, file: Version, offset: int, length: int) -> bytes:
        try:
            etag, data = self.bucket.patiently(lambda: self._request(file, offset, length))
        except S3Fault as fault:
            if fault.kind is FaultKind.EMPTY_RANGE:
                return b""
            self._raise(fault, file)
        if etag != file.version:
            # A store that does not heed If-Match.
            raise _changed()
        return data

    def _request(self, file: Version, offset: int, length: int) -> tuple[str, bytes]:
        response = self.bucket.client.get_object(
            Bucket=self.bucket.name,
            Key=self._key(file.name),
            Range=f"bytes={offset}-{offset + length - 1}",
            IfMatch=f'"{file.version}"',
        )
        with closing(response["Body"]) as body:
            data: bytes = body.read()
        if response["ResponseMetadata"]["HTTPStatusCode"] != PARTIAL_CONTENT:
            data = data[offset : offset + length]
        return response["ETag"].strip('"'), data

    def _key(self, name: bytes) -> str:
        return self.address.prefix + name.decode()

    def _raise(self, fault: S3Fault, file: Version) -> NoReturn:
        if fault.kind is FaultKind.PRECONDITION:
            raise _changed() from None
        reason = explain(fault, self.where(file.name), self.bucket.endpoint)
        raise StoreUnavailable(
            f"{reason} It holds images, none of which is blamed for it; mend it and give the same "
            "command again."
        ) from None


class _OpenObject(io.RawIOBase):
    """An object as a seekable file."""

    def __init__(self, blobs: S3Blobs, blob: Blob, listed: bool) -> None:
        self.blobs, self.blob, self.listed = blobs, blob, listed
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.blob.size_bytes}
        self.position = max(0, base[whence] + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self.blob.size_bytes - self.position)
        try:
            data = self.blobs.read_range(self.blob, self.position, length)
        except ImageFault:
            if self.listed:
                raise
            raise StoreUnavailable(
                f"{self.blobs.where(self.blob.name)} was replaced while it was read. Give the same "
                "command again."
            ) from None
        view[: len(data)] = data
        self.position += len(data)
        return len(data)


def _changed() -> ImageFault:
    return ImageFault("changed", "changed between listing and reading")
