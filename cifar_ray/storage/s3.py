"""A bucket of an S3-compatible store as the place of a run.

A write is one put, or a multipart upload that is completed last: whole or not at all.
"""

import base64
import errno
import hashlib
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from boto3.s3.transfer import TransferConfig

from cifar_ray.errors import OUT_OF_SPACE, InputError, StoreUnavailable, Unfinished
from cifar_ray.storage.base import TEMPORARY
from cifar_ray.storage.s3_address import S3Address
from cifar_ray.storage.s3_bucket import Bucket
from cifar_ray.storage.s3_faults import FaultKind, S3Fault, explain
from cifar_ray.storage.s3_read import open_object, read_object

MULTIPART_BYTES = 2**25
"""From this size on a file goes up in parts, of this size each."""
DELETE_BATCH = 1000
_TRANSFER = TransferConfig(
    multipart_threshold=MULTIPART_BYTES, multipart_chunksize=MULTIPART_BYTES, use_threads=False
)


class S3Store:
    """What lies below a prefix of a bucket."""

    def __init__(self, address: S3Address) -> None:
        """Nothing is asked of the store before the first use."""
        self.address = address
        self.bucket = Bucket(address.bucket)
        self.has_written = False

    def __reduce__(self) -> tuple[type["S3Store"], tuple[S3Address]]:
        """Travel to another process by name alone."""
        return S3Store, (self.address,)

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return self.address.uri

    def check(self) -> None:
        """Raise `InputError` unless the place can be reached and listed."""
        try:
            self._page(self.address.prefix, MaxKeys=1)
        except S3Fault as fault:
            raise InputError(self._explain(fault)) from None

    def read(self, name: str) -> bytes:
        """Return a file's bytes; `FileNotFoundError` if there is none."""
        try:
            return read_object(self.bucket, self._key(name))
        except S3Fault as fault:
            self._raise(fault, name)

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading, seekable; `FileNotFoundError` if there is none."""
        try:
            return cast(BinaryIO, open_object(self.bucket, self._key(name)))
        except S3Fault as fault:
            self._raise(fault, name)

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically, in place of an older one."""
        if len(data) >= MULTIPART_BYTES:
            with self.staged(name) as path:
                path.write_bytes(data)
            return
        try:
            self._put(name, data)
        except S3Fault as fault:
            self._raise(fault, name)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file atomically unless one exists; tell whether it was written.

        Where the store does not heed `If-None-Match`, of two that create the same name within the
        same moment both may believe that they did, and the later one's bytes stay.
        """
        try:
            if self._heeds_if_none_match:
                return self._put_unless_exists(name, data)
            if self.exists(name):
                return False
            self._put(name, data)
        except S3Fault as fault:
            self._raise(fault, name)
        return True

    def note(self, name: str, data: bytes) -> bool:
        """Create a file of a few bytes; here, there is no quicker way than `create`."""
        return self.create(name, data)

    def exists(self, name: str) -> bool:
        """Tell whether a file exists."""
        try:
            self.bucket.call("head_object", Key=self._key(name))
        except S3Fault as fault:
            if fault.kind is FaultKind.MISSING:
                return False
            self._raise(fault, name)
        return True

    def names(self, folder: str, prefix: str = "") -> list[str]:
        """Return the names directly in `folder` that begin with `prefix`, in order, or none."""
        below = self._key(f"{folder}/") if folder else self.address.prefix
        found: set[str] = set()
        try:
            for page in self._pages(below + prefix, Delimiter="/"):
                keys = [item["Key"] for item in page.get("Contents", ())]
                keys += [item["Prefix"] for item in page.get("CommonPrefixes", ())]
                found.update(key.removeprefix(below).rstrip("/") for key in keys)
        except S3Fault as fault:
            self._raise(fault, folder)
        return sorted(found - {""})

    def written(self, folder: str, prefix: str = "") -> list[tuple[str, float]]:
        """Return the files among `names`, each with the time of its writing (Unix seconds)."""
        below = self._key(f"{folder}/") if folder else self.address.prefix
        found: list[tuple[str, float]] = []
        try:
            for page in self._pages(below + prefix, Delimiter="/"):
                found += [
                    (item["Key"].removeprefix(below), item["LastModified"].timestamp())
                    for item in page.get("Contents", ())
                ]
        except S3Fault as fault:
            self._raise(fault, folder)
        return sorted(found)

    def delete(self, name: str) -> None:
        """Delete a file or a folder with all in it; nothing happens if there is none."""
        key = self._key(name)
        try:
            self.bucket.call("delete_object", Key=key)
            for page in self._pages(f"{key}/", MaxKeys=DELETE_BATCH):
                self._delete_all([item["Key"] for item in page.get("Contents", ())])
        except S3Fault as fault:
            self._raise(fault, name)

    def move(self, name: str, to: str) -> None:
        """Move a file, in place of an older one; `FileNotFoundError` if there is none.

        There are two of them for a moment, never none.
        """
        source = {"Bucket": self.bucket.name, "Key": self._key(name)}
        try:
            self.bucket.call("copy_object", Key=self._key(to), CopySource=source)
            self.bucket.call("delete_object", Key=self._key(name))
        except S3Fault as fault:
            self._raise(fault, name)

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """Give a local path to write to; at the end of the block it is uploaded as `name`."""
        with tempfile.TemporaryDirectory(prefix="cifar-ray-") as folder:
            path = Path(folder) / "file"
            try:
                yield path
            except OSError as error:
                if error.errno not in OUT_OF_SPACE:
                    raise
                raise Unfinished(
                    f"No space left on the disk of {tempfile.gettempdir()}, where files for "
                    f"{self.uri} are prepared. Free some space or set TMPDIR, and give the same "
                    "command again to go on."
                ) from error
            try:
                self.bucket.patiently(lambda: self._upload(path, self._key(name)))
            except S3Fault as fault:
                self._raise(fault, name)

    def sweep(self) -> str | None:
        """Abort the uploads and delete the files that a killed process has left unfinished.

        Returns what to tell the user if uploads cannot be listed or aborted.
        """
        left = None
        try:
            for upload in self._uploads():
                self._abort(upload)
        except S3Fault as fault:
            if fault.kind not in (FaultKind.DENIED, FaultKind.OTHER):
                self._raise(fault, "")
            left = (
                f"{self.uri}: uploads that a killed run may have left unfinished stay there, for "
                f"the store does not let us look ({fault.code}). They cost space, and no image: "
                "allow s3:ListBucketMultipartUploads and s3:AbortMultipartUpload, or let a rule "
                "of the bucket abort old uploads."
            )
        self.delete(TEMPORARY)
        return left

    def _uploads(self) -> list[dict[str, Any]]:
        marker: dict[str, str] = {}
        uploads: list[dict[str, Any]] = []
        while True:
            page = self.bucket.call("list_multipart_uploads", Prefix=self.address.prefix, **marker)
            uploads += page.get("Uploads", ())
            if not page.get("IsTruncated"):
                return uploads
            marker = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

    def _abort(self, upload: dict[str, Any]) -> None:
        try:
            self.bucket.call(
                "abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"]
            )
        except S3Fault as fault:
            if fault.kind is not FaultKind.MISSING:
                raise

    def _key(self, name: str) -> str:
        return self.address.prefix + name

    def _put(self, name: str, data: bytes, **conditions: str) -> None:
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        self.bucket.call(
            "put_object",
            Key=self._key(name),
            Body=data,
            ContentMD5=base64.b64encode(digest).decode(),
            **conditions,
        )
        self.has_written = True

    def _upload(self, path: Path, key: str) -> None:
        with open(path, "rb") as file:
            self.bucket.client.upload_fileobj(file, self.bucket.name, key, Config=_TRANSFER)
        self.has_written = True

    def _put_unless_exists(self, name: str, data: bytes) -> bool:
        try:
            self._put(name, data, IfNoneMatch="*")
        except S3Fault as fault:
            if fault.kind is not FaultKind.PRECONDITION:
                raise
            # The first attempt may have come through with its answer lost.
            return fault.retried and read_object(self.bucket, self._key(name)) == data
        return True

    @cached_property
    def _heeds_if_none_match(self) -> bool:
        """Whether a second put with `If-None-Match: *` is refused; tried once a process."""
        name = f"{TEMPORARY}/{uuid.uuid4().hex}"
        self._put(name, b"")
        try:
            self._put(name, b"", IfNoneMatch="*")
        except S3Fault as fault:
            if fault.kind not in (FaultKind.PRECONDITION, FaultKind.OTHER):
                raise
            return fault.kind is FaultKind.PRECONDITION
        finally:
            self.bucket.call("delete_object", Key=self._key(name))
        return False

    def _pages(self, prefix: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            page = self._page(prefix, **parameters, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _page(self, prefix: str, **parameters: Any) -> dict[str, Any]:
        page: dict[str, Any] = self.bucket.call("list_objects_v2", Prefix=prefix, **parameters)
        return page

    def _delete_all(self, keys: list[str]) -> None:
        """Delete in one request, or one by one where the store knows no such request."""
        if not keys:
            return
        objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        try:
            answer = self.bucket.call("delete_objects", Delete=objects)
            left = [error["Key"] for error in answer.get("Errors", ())]
        except S3Fault as fault:
            if fault.kind is not FaultKind.OTHER:
                raise
            left = keys
        for key in left:
            self.bucket.call("delete_object", Key=key)

    def _raise(self, fault: S3Fault, name: str) -> NoReturn:
        if fault.kind is FaultKind.MISSING:
            raise FileNotFoundError(errno.ENOENT, "no such object", f"{self.uri}/{name}") from None
        if fault.kind is FaultKind.DENIED and not self.has_written:
            raise InputError(self._explain(fault)) from None
        raise StoreUnavailable(
            f"{self._explain(fault)} What is written is whole; give the same command again to go "
            "on once that is mended."
        ) from None

    def _explain(self, fault: S3Fault) -> str:
        return explain(fault, self.uri, self.bucket.endpoint)
