"""Where to split the listing of a bucket, so that its ranges can be listed side by side.

A split costs parts: each range begins shards of its own. So a store of few keys is one range, and
neighbouring prefixes with few keys share one.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from cifar_ray.config.labelling import SourceReference
from cifar_ray.errors import StoreUnavailable
from cifar_ray.storage.s3_address import S3Address
from cifar_ray.storage.s3_bucket import Bucket
from cifar_ray.storage.s3_faults import S3Fault, explain

MAX_RANGES = 1000
KEYS_A_RANGE = 1000
"""At least, as far as the first keys tell: a page of a listing."""
PAGES = 10
"""That are looked at, of keys and of prefixes. What lies behind them is in the last range."""


def split_s3_source(reference: SourceReference) -> SourceReference:
    """Return the reference with its ranges; `StoreUnavailable` if the store stops to answer."""
    address = S3Address.parse(reference.uri)
    try:
        return reference.model_copy(update={"ranges": find_ranges(address)})
    except S3Fault as fault:
        reason = explain(fault, address.uri, Bucket(address.bucket).endpoint)
        raise StoreUnavailable(reason) from None


def find_ranges(
    address: S3Address,
    pages: int = PAGES,
    page_size: int = 1000,
    keys_a_range: int = KEYS_A_RANGE,
) -> tuple[str, ...]:
    """Return the keys, below the prefix, behind which ranges begin; the first is empty.

    They follow from the listing alone. Raises `S3Fault`.
    """
    first = list(islice(_pages(address, MaxKeys=page_size), pages))
    if not first[-1].get("IsTruncated"):
        return ("",)
    keys = [item["Key"] for page in first for item in page.get("Contents", ())]
    below = [key.removeprefix(address.prefix) for key in keys]
    num_prefixes = len({key.partition("/")[0] for key in below if "/" in key})
    prefixes = [
        item["Prefix"].removeprefix(address.prefix)
        for page in islice(_pages(address, MaxKeys=page_size, Delimiter="/"), pages)
        for item in page.get("CommonPrefixes", ())
    ]
    step = max(-(-num_prefixes * keys_a_range // len(keys)), -(-len(prefixes) // MAX_RANGES), 1)
    # The first range also holds what lies before the first prefix.
    return ("", *prefixes[step::step])


def _pages(address: S3Address, **parameters: Any) -> Iterator[dict[str, Any]]:
    bucket = Bucket(address.bucket)
    token: dict[str, str] = {}
    while True:
        page = bucket.call("list_objects_v2", Prefix=address.prefix, **parameters, **token)
        yield page
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}
