"""Reading images of a bucket, and telling a fault of an image from a fault of the store."""

from typing import NoReturn

from cifar_ray.errors import ImageFault, StoreUnavailable
from cifar_ray.prediction.sources.base import MAX_IMAGE_BYTES, Entry, TransientFault
from cifar_ray.storage.s3_address import S3Address
from cifar_ray.storage.s3_bucket import PATIENCE_S, Bucket
from cifar_ray.storage.s3_fast import FastReader
from cifar_ray.storage.s3_faults import FaultKind, S3Fault, explain
from cifar_ray.storage.s3_read import look_at_object, read_object

_FAULTS = {
    FaultKind.MISSING: ("not_found", "listed, but not there when it was read"),
    FaultKind.DENIED: ("denied", "the store denies reading it"),
    FaultKind.ARCHIVED: ("archived", "in an archive, from which it has to be restored first"),
    FaultKind.PRECONDITION: ("changed", "changed between listing and reading"),
    FaultKind.EMPTY_RANGE: ("changed", "changed between listing and reading"),
    FaultKind.OTHER: ("fetch_failed", "the store cannot read it"),
}
_OF_THE_STORE = (FaultKind.CREDENTIALS, FaultKind.NO_BUCKET)


class S3Fetcher:
    """Reads images below a prefix. What obstore does not give at once, boto3 decides about."""

    parallel_reads = 32

    def __init__(
        self, address: S3Address, patience_s: float = PATIENCE_S, fast: bool = True
    ) -> None:
        """`patience_s` is how long a fault that may pass is waited out; `fast` allows obstore."""
        self.address = address
        self.bucket = Bucket(address.bucket, patience_s)
        self.fast = FastReader.if_possible(self.bucket) if fast else None

    def fetch(self, entry: Entry) -> bytes:
        """Return the bytes; `ImageFault` with the row's status, or `StoreUnavailable`."""
        if entry.size_bytes > MAX_IMAGE_BYTES:
            raise ImageFault("too_large", f"more than {MAX_IMAGE_BYTES} bytes")
        key = self._key(entry.key if entry.locator is None else entry.locator.decode())
        if self.fast is not None:
            data = self.fast.read(key, entry.version, entry.size_bytes)
            if data is not None:
                return data
        try:
            return read_object(self.bucket, key, entry.version)
        except S3Fault as fault:
            self._raise(fault)

    def look(self, below: str) -> tuple[str, int]:
        """Return ETag and size of an object by its key below the prefix; raises as `fetch`."""
        key = self._key(below)
        found = None if self.fast is None else self.fast.look(key)
        try:
            return found or look_at_object(self.bucket, key)
        except S3Fault as fault:
            self._raise(fault)

    def _key(self, below: str) -> str:
        return self.address.prefix + below

    def _raise(self, fault: S3Fault) -> NoReturn:
        if fault.kind in _OF_THE_STORE:
            self._unavailable(explain(fault, self.address.uri, self.bucket.endpoint))
        if fault.kind is not FaultKind.PRECONDITION:
            self.check()
        if fault.kind is FaultKind.TRANSIENT:
            raise TransientFault from None
        raise ImageFault(*_FAULTS[fault.kind]) from None

    def check(self) -> None:
        """Do a control read of the store; `StoreUnavailable` if the store itself is gone."""
        try:
            page = self.bucket.call("list_objects_v2", Prefix=self.address.prefix, MaxKeys=1)
        except S3Fault as fault:
            self._unavailable(explain(fault, self.address.uri, self.bucket.endpoint))
        if not page.get("Contents"):
            self._unavailable(f"{self.address.uri} is empty.")

    def _unavailable(self, reason: str) -> NoReturn:
        raise StoreUnavailable(
            f"{reason} No image is blamed for it; mend it and give the same command again."
        ) from None
