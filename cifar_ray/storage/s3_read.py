"""Reading objects: whole, with a body cut short read on, or by parts, as a file."""

import io
from contextlib import closing
from typing import Any

from cifar_ray.storage.s3_bucket import Bucket
from cifar_ray.storage.s3_faults import FaultKind, S3Fault

BODY_CHUNK_BYTES = 2**18
"""Of a body that breaks off, no more than this is read again."""
FILE_CHUNK_BYTES = 2**20
TAIL_BYTES = 2**16
"""What comes with the opening of a file: Parquet keeps at its end what tells where all else is."""
PARTIAL_CONTENT = 206


def read_object(bucket: Bucket, key: str, etag: str | None = None) -> bytes:
    """Return an object; with an ETag (without quotes), of that version or none.

    Raises `S3Fault`, of the kind `PRECONDITION` for another version.
    """
    body = _Body(bucket, key, etag)
    return bucket.patiently(body.read)


def look_at_object(bucket: Bucket, key: str) -> tuple[str, int]:
    """Return an object's ETag (without quotes) and size; `S3Fault` if that cannot be done.

    The answer to HEAD does not say why it is refused, so that GET is asked then.
    """
    try:
        found = bucket.call("head_object", Key=key)
    except S3Fault:
        bucket.call("get_object", Key=key, Range="bytes=0-0")["Body"].close()
        raise
    return found["ETag"].strip('"'), found["ContentLength"]


class _Body:
    """An object's bytes, however many requests they take: each goes on where the last one ended."""

    def __init__(self, bucket: Bucket, key: str, etag: str | None) -> None:
        self.bucket = bucket
        self.key = key
        self.etag = etag
        self.data = bytearray()

    def read(self) -> bytes:
        """Read to the end; boto3's error for a body cut short, then call it again."""
        response = self._request()
        etag = response["ETag"].strip('"')
        if self.etag is not None and etag != self.etag:
            # A store that does not heed If-Match.
            raise S3Fault(FaultKind.PRECONDITION, "ETag")
        self.etag = etag
        if response["ResponseMetadata"]["HTTPStatusCode"] != PARTIAL_CONTENT:
            self.data.clear()
        # `with body:` would give the stream below it, which takes a body cut short as whole.
        with closing(response["Body"]) as body:
            while chunk := body.read(BODY_CHUNK_BYTES):
                self.data += chunk
        return bytes(self.data)

    def _request(self) -> Any:
        parameters = {"Bucket": self.bucket.name, "Key": self.key}
        if self.etag is not None:
            parameters["IfMatch"] = f'"{self.etag}"'
        if self.data:
            parameters["Range"] = f"bytes={len(self.data)}-"
        return self.bucket.client.get_object(**parameters)


class ObjectReader(io.RawIOBase):
    """An object as a seekable file. Opening it brings its end along; other parts come when read."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        """Raise `S3Fault` if it cannot be opened."""
        self.bucket = bucket
        self.key = key
        self.position = 0
        self.etag, self.size, self.tail = bucket.patiently(self._open)

    def _open(self) -> tuple[str, int, bytes]:
        try:
            etag, content_range, tail = self._get(f"bytes=-{TAIL_BYTES}", None)
        except S3Fault as fault:
            if fault.kind is FaultKind.EMPTY_RANGE:
                return "", 0, b""
            raise
        # A store may answer with all of it, as to a request without a range.
        size = int(content_range.rpartition("/")[2]) if content_range else len(tail)
        return etag, size, tail

    def _get(self, byte_range: str, etag: str | None) -> tuple[str, str | None, bytes]:
        parameters = {"Range": byte_range, **({"IfMatch": etag} if etag else {})}
        response = self.bucket.call("get_object", Key=self.key, **parameters)
        with closing(response["Body"]) as body:
            return response["ETag"], response.get("ContentRange"), body.read()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return the position of the next read."""
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position; no request is made."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = max(0, base + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, from the end that is here already or by one request."""
        view = memoryview(buffer).cast("B")
        end = min(self.position + len(view), self.size)
        if end <= self.position:
            return 0
        data = self._bytes(self.position, end)
        view[: len(data)] = data
        self.position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Return the rest, in as few requests; the inherited one makes hundreds."""
        pieces = []
        while self.position < self.size:
            pieces.append(self._bytes(self.position, self.size))
            self.position += len(pieces[-1])
        return b"".join(pieces)

    def _bytes(self, start: int, end: int) -> bytes:
        tail_start = self.size - len(self.tail)
        if start >= tail_start:
            return self.tail[start - tail_start : end - tail_start]
        # One request up to the tail at most; who wants more reads on.
        end = min(end, tail_start)
        return self.bucket.patiently(lambda: self._get(f"bytes={start}-{end - 1}", self.etag)[2])


def open_object(bucket: Bucket, key: str) -> io.BufferedReader:
    """Open an object for reading, a mebibyte a request where little is asked for at a time."""
    return io.BufferedReader(ObjectReader(bucket, key), FILE_CHUNK_BYTES)
