"""A bucket, or what lies below a prefix of it, as a store of images, in the order of its keys.

S3 lists in the UTF-8 byte order of keys. A listing may be split at keys into ranges, which are
listed side by side: every key lies in exactly one, and one after another they are the whole.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cifar_ray.config.labelling import LabellingConfig, SourceReference
from cifar_ray.errors import InputError, StoreUnavailable
from cifar_ray.prediction.sources.base import Entry, Skipped, skipped_object_kind
from cifar_ray.prediction.sources.s3_fetch import S3Fetcher
from cifar_ray.storage.s3_address import S3Address
from cifar_ray.storage.s3_bucket import Bucket
from cifar_ray.storage.s3_faults import S3Fault, explain


@dataclass(frozen=True, slots=True)
class S3Source:
    """A bucket or a prefix of it. The reference's ranges are the keys behind which each begins."""

    reference: SourceReference
    config: LabellingConfig

    @property
    def address(self) -> S3Address:
        """Bucket and prefix."""
        return S3Address.parse(self.reference.uri)

    def listing(self, range_number: int) -> "S3Listing":
        """Return the listing of a range."""
        bounds = (*self.reference.ranges, None)
        lower, upper = bounds[range_number], bounds[range_number + 1]
        return S3Listing(self.address, self.config, lower or "", upper)

    def fetcher(self) -> S3Fetcher:
        """Return a reader."""
        return S3Fetcher(self.address)

    def uri(self, entry: Entry) -> str:
        """Return the `s3://` uri that opens an image; the key stands in it as it is."""
        return f"s3://{self.address.bucket}/{self.address.prefix}{entry.key}"


class S3Listing:
    """The keys behind `lower` up to and with `upper`, below the prefix. The next page is fetched
    while this one is used."""

    def __init__(
        self, address: S3Address, config: LabellingConfig, lower: str = "", upper: str | None = None
    ) -> None:
        """`config` brings the patterns of `--include` and `--exclude`."""
        self.address = address
        self.config = config
        self.lower = lower
        self.upper = upper
        self.bucket = Bucket(address.bucket)

    def entries(self, after: str | None) -> Iterator[Entry | Skipped]:
        """Yield in the order of keys; `StoreUnavailable` if the store stops to answer."""
        previous = max(self.lower, after or "")
        for item in self._objects(previous):
            key = item["Key"].removeprefix(self.address.prefix)
            if self.upper is not None and key > self.upper:
                return
            if key and key <= previous:
                raise InputError(
                    f"{self.address.uri} does not list its keys in order (as directory buckets do "
                    "not), so that a run over it could lose some. Give a manifest of it."
                )
            previous = key
            yield self._entry(key, item)

    def _entry(self, key: str, item: dict[str, Any]) -> Entry | Skipped:
        skipped = skipped_object_kind(key, self.config)
        if skipped is not None:
            return Skipped(skipped)
        return Entry(key, item["ETag"].strip('"'), item["Size"])

    def _objects(self, after: str) -> Iterator[dict[str, Any]]:
        ahead = ThreadPoolExecutor(1, "listing")
        try:
            start = {"StartAfter": self.address.prefix + after} if after else {}
            page = ahead.submit(self._page, **start)
            while True:
                answer = self._result(page.result())
                objects = answer.get("Contents", [])
                if answer.get("IsTruncated"):
                    page = ahead.submit(self._page, **_behind(answer))
                yield from objects
                if not answer.get("IsTruncated"):
                    return
        finally:
            ahead.shutdown(wait=False, cancel_futures=True)

    def _page(self, **position: str) -> dict[str, Any] | S3Fault:
        try:
            page: dict[str, Any] = self.bucket.call(
                "list_objects_v2", Prefix=self.address.prefix, **position
            )
        except S3Fault as fault:
            return fault
        return page

    def _result(self, answer: dict[str, Any] | S3Fault) -> dict[str, Any]:
        if isinstance(answer, S3Fault):
            raise StoreUnavailable(
                f"{explain(answer, self.address.uri, self.bucket.endpoint)} The listing stopped; "
                "give the same command again to go on behind its last key."
            )
        return answer


def _behind(page: dict[str, Any]) -> dict[str, str]:
    """Return where the next page begins: a key, which holds however long the workers take."""
    if page.get("Contents"):
        return {"StartAfter": page["Contents"][-1]["Key"]}
    return {"ContinuationToken": page["NextContinuationToken"]}
