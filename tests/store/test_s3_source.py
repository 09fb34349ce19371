"""A bucket as a source: every key once, in order, in ranges, from any point on."""

import itertools
import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifar_ray.config.labelling import LabellingConfig, SourceReference
from cifar_ray.errors import InputError, StoreUnavailable
from cifar_ray.prediction.sources import Entry, Skipped, find_source, open_source
from cifar_ray.prediction.sources.control import ControlledListing
from cifar_ray.prediction.sources.s3 import S3Listing
from cifar_ray.prediction.sources.s3_ranges import MAX_RANGES, find_ranges
from cifar_ray.storage import S3Address
from tests.store.conftest import BUCKET
from tests.store.proxy import FaultProxy, Rule

CONFIG = LabellingConfig()
ODD_KEYS = (
    "Umlaut \u00e4.jpg",
    unicodedata.normalize("NFD", "Umlaut \u00e4.jpg"),
    "a//b.jpg",
    "a/b%20c+d &#?.jpg",
    "a/no extension",
    "a b/c.png",
    "sm\U0001f600le.jpg",
    "\uffee.jpg",
    "z*(1)'!~$,;=@:.jpg",
)


def put(client: Any, prefix: str, *keys: str) -> None:
    for key in keys:
        client.put_object(Bucket=BUCKET, Key=prefix + key, Body=key.encode())


def address_of(prefix: str) -> S3Address:
    return S3Address(BUCKET, prefix)


def small_pages(listing: S3Listing, size: int = 2) -> S3Listing:
    """Let the store give no more than so many keys at a time."""

    def limit(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = size

    events = listing.bucket.client.meta.events
    events.register("before-parameter-build.s3.ListObjectsV2", limit)
    return listing


def keys_of(listing: S3Listing, after: str | None = None) -> list[str]:
    return [item.key for item in listing.entries(after) if isinstance(item, Entry)]


def test_odd_keys_are_listed_in_byte_order_with_their_etags(prefix: str, client: Any) -> None:
    put(client, prefix, *ODD_KEYS)
    listing = small_pages(S3Listing(address_of(prefix), CONFIG))
    entries = list(listing.entries(None))
    assert [e.key for e in entries if isinstance(e, Entry)] == sorted(
        ODD_KEYS, key=lambda key: key.encode()
    )
    head = client.head_object(Bucket=BUCKET, Key=prefix + ODD_KEYS[0])
    first = next(e for e in entries if isinstance(e, Entry) and e.key == ODD_KEYS[0])
    assert f'"{first.version}"' == head["ETag"]
    assert first.size_bytes == len(ODD_KEYS[0].encode())


def test_markers_hidden_files_and_other_kinds_are_skipped_and_counted(
    prefix: str, client: Any
) -> None:
    put(client, prefix, "", "a/", "a_$folder$", ".hidden", "_temporary/x.jpg", "x.mp4", "a/x.jpg")
    found = list(S3Listing(address_of(prefix), CONFIG).entries(None))
    assert [item.key for item in found if isinstance(item, Entry)] == ["a/x.jpg"]
    kinds = sorted(item.kind for item in found if isinstance(item, Skipped))
    assert kinds == [*["(folder marker)"] * 3, *["(hidden)"] * 2, ".mp4"]


def test_a_listing_goes_on_behind_any_key_even_one_that_is_gone(prefix: str, client: Any) -> None:
    keys = [f"{name}/{number}.jpg" for name in "abc" for number in range(3)]
    put(client, prefix, *keys)
    listing = small_pages(S3Listing(address_of(prefix), CONFIG))
    for at, key in enumerate(keys):
        assert keys_of(listing, key) == keys[at + 1 :]
    assert keys_of(listing, "b/1.jpgg") == keys[5:]


def test_a_place_is_a_folder_and_not_the_beginning_of_names(prefix: str, client: Any) -> None:
    put(client, prefix, "cat/1.jpg", "cats/2.jpg", "cat.jpg")
    reference = find_source(f"s3://{BUCKET}/{prefix}cat")
    source = open_source(reference, CONFIG)
    entries = [item for item in source.listing(0).entries(None) if isinstance(item, Entry)]
    assert [entry.key for entry in entries] == ["1.jpg"]
    assert source.uri(entries[0]) == f"s3://{BUCKET}/{prefix}cat/1.jpg"


def test_a_prefix_that_a_run_has_listed_and_that_is_empty_now_is_a_fault_of_the_store(
    prefix: str, client: Any
) -> None:
    put(client, prefix, "a.jpg", "b.jpg")
    reference = SourceReference(kind="s3", uri=address_of(prefix).uri, ranges=("", "a.jpg"))
    listing = ControlledListing(open_source(reference, CONFIG).listing(1), reference)
    client.delete_object(Bucket=BUCKET, Key=f"{prefix}b.jpg")
    assert list(listing.entries(None)) == []  # A range may be; the place is not.
    client.delete_object(Bucket=BUCKET, Key=f"{prefix}a.jpg")
    with pytest.raises(StoreUnavailable, match="is empty"):
        list(listing.entries(None))


def test_nothing_to_label_is_an_error_of_the_input(place: str, prefix: str, client: Any) -> None:
    put(client, prefix, "one.jpg")
    for uri in (f"{place}/nothing", f"{place}/one.jpg"):
        with pytest.raises(InputError, match="holds nothing"):
            find_source(uri)
    with pytest.raises(InputError, match="no such bucket"):
        find_source("s3://no-such-bucket/x")


# Without a dot: boto3 cannot write keys with the segments `.` and `..`.
KEYS = st.text("ab/\u00e4\U0001f600-0", min_size=1, max_size=6)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    keys=st.sets(KEYS, min_size=1, max_size=8),
    bounds=st.sets(KEYS, max_size=3),
    example=st.uuids(),
)
def test_any_ranges_hold_every_key_once_and_in_order(
    keys: set[str], bounds: set[str], example: object, prefix: str, client: Any
) -> None:
    below = f"{prefix}{example}/"
    put(client, below, *keys)
    config = LabellingConfig(include=("*",))
    ranges = ("", *sorted(bounds, key=lambda bound: bound.encode()))
    reference = SourceReference(kind="s3", uri=address_of(below).uri, ranges=ranges)
    source = open_source(reference, config)
    items = [list(source.listing(number).entries(None)) for number in range(len(ranges))]
    whole = list(itertools.chain(*items))
    listed = [item.key for item in whole if isinstance(item, Entry)]
    markers = sum(isinstance(item, Skipped) for item in whole)
    expected = sorted((key for key in keys if not key.endswith("/")), key=lambda key: key.encode())
    assert listed == expected
    assert markers == len(keys) - len(expected)


def test_a_small_store_is_one_range(prefix: str, client: Any) -> None:
    put(client, prefix, "a/1.jpg", "b/2.jpg")
    assert find_ranges(address_of(prefix)) == ("",)


def test_a_larger_store_is_split_at_the_prefixes_one_level_down(prefix: str, client: Any) -> None:
    keys = [f"{name}/{number:03}.jpg" for name in "abcd" for number in range(4)]
    put(client, prefix, "0.jpg", "b.jpg", "z.jpg", *keys)
    address = address_of(prefix)
    ranges = find_ranges(address, pages=2, page_size=4, keys_a_range=1)
    assert ranges == ("", "b/", "c/", "d/")
    # Few keys a prefix: neighbours share a range.
    assert find_ranges(address, pages=2, page_size=4, keys_a_range=8) == ("", "c/")
    assert len(ranges) <= MAX_RANGES
    reference = SourceReference(kind="s3", uri=address.uri, ranges=ranges)
    source = open_source(reference, CONFIG)
    listed = [[e.key for e in source.listing(n).entries(None)] for n in range(4)]  # type: ignore[union-attr]
    assert list(itertools.chain(*listed)) == sorted(["0.jpg", "b.jpg", "z.jpg", *keys])
    assert listed[1] == keys[4:8]


def test_the_next_page_is_asked_for_before_this_one_is_used_up(
    prefix: str, client: Any, proxy: FaultProxy
) -> None:
    put(client, prefix, *(f"{n}.jpg" for n in range(6)))
    entries = small_pages(S3Listing(address_of(prefix), CONFIG), 3).entries(None)
    next(entries)
    while sum("list-type=2" in request for request in proxy.requests) < 2:
        pass  # It is on its way, in a thread; pytest's timeout ends this if it is not.
    assert len(list(entries)) == 5


def test_a_listing_waits_out_faults_that_pass(prefix: str, client: Any, proxy: FaultProxy) -> None:
    keys = [f"{number}.jpg" for number in range(8)]
    put(client, prefix, *keys)
    for action in (503, "reset", "cut"):
        proxy.add(Rule("list-type=2.*start-after", action, times=1))  # type: ignore[arg-type]
    assert keys_of(small_pages(S3Listing(address_of(prefix), CONFIG))) == keys


def test_a_store_that_stops_to_answer_ends_the_listing_as_unavailable(
    prefix: str, client: Any, proxy: FaultProxy
) -> None:
    put(client, prefix, *(f"{number}.jpg" for number in range(8)))
    listing = small_pages(S3Listing(address_of(prefix), CONFIG))
    listing.bucket.patience_s = 0.5
    entries = listing.entries(None)
    next(entries)
    proxy.add(Rule("", 503))
    with pytest.raises(StoreUnavailable, match="go on behind its last key"):
        list(entries)


def test_a_store_that_lists_in_another_order_is_refused(prefix: str, client: Any) -> None:
    put(client, prefix, "a.jpg", "b.jpg")
    listing = S3Listing(address_of(prefix), CONFIG)

    def turn_round(parsed: dict[str, Any], **_: Any) -> None:
        parsed["Contents"].reverse()

    listing.bucket.client.meta.events.register("after-call.s3.ListObjectsV2", turn_round)
    with pytest.raises(InputError, match="in order"):
        list(listing.entries(None))
