"""Reading from a bucket: what each fault ends in, through obstore and through boto3 alone."""

import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from cifar_ray.errors import ImageFault, StoreUnavailable
from cifar_ray.prediction.sources import Entry, TransientFault
from cifar_ray.prediction.sources.base import MAX_IMAGE_BYTES
from cifar_ray.prediction.sources.s3_fetch import S3Fetcher
from cifar_ray.storage import S3Address
from tests.store.conftest import BUCKET
from tests.store.proxy import FaultProxy, Rule
from tests.store.servers import MotoServer, Server
from tests.store.test_s3_source import ODD_KEYS

PAYER = "x-amz-request-payer"
DATA = bytes(range(256)) * 400
Put = Callable[..., Entry]


@pytest.fixture(params=[True, False], ids=["obstore", "boto3"])
def fast(request: pytest.FixtureRequest) -> bool:
    if request.param:
        pytest.importorskip("obstore")
    return bool(request.param)


@pytest.fixture
def fetcher(fast: bool, prefix: str) -> S3Fetcher:
    fetcher = S3Fetcher(S3Address(BUCKET, prefix), patience_s=60.0, fast=fast)
    assert (fetcher.fast is not None) == fast
    return fetcher


@pytest.fixture
def put(prefix: str, client: Any) -> Put:
    def put(key: str, data: bytes = DATA, **options: str) -> Entry:
        etag = client.put_object(Bucket=BUCKET, Key=prefix + key, Body=data, **options)["ETag"]
        return Entry(key, etag.strip('"'), len(data))

    return put


def status_of(fetcher: S3Fetcher, entry: Entry) -> str:
    with pytest.raises(ImageFault) as told:
        fetcher.fetch(entry)
    return told.value.status


def test_odd_keys_are_read(fetcher: S3Fetcher, put: Put) -> None:
    for key in (*ODD_KEYS, "plain.jpg", "%41.jpg"):
        entry = put(key, key.encode())
        assert fetcher.fetch(entry) == key.encode()
    assert fetcher.fetch(put("empty.jpg", b"")) == b""


def test_the_fast_reader_reads_and_boto3_is_not_asked(
    fetcher: S3Fetcher, put: Put, proxy: FaultProxy
) -> None:
    entry = put("a b/plain (1).jpg")
    proxy.requests.clear()
    if fetcher.fast is not None:
        assert fetcher.fast.read(fetcher.address.prefix + entry.key, entry.version, 1) == DATA
    else:
        assert fetcher.fetch(entry) == DATA
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("named", ["AWS_CA_BUNDLE", "profile"])
def test_a_certificate_of_the_users_own_is_trusted_by_either_reader(
    fast: bool,
    named: str,
    prefix: str,
    put: Put,
    proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = put("x.jpg")
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    if named == "profile":
        (tmp_path / "config").write_text(f"[default]\nca_bundle = {tmp_path / 'ca.pem'}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    else:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    secure = FaultProxy(proxy.upstream, tls=context)
    secure.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", secure.url)
        fetcher = S3Fetcher(S3Address(BUCKET, prefix), fast=fast)
        assert (fetcher.fast is not None) == fast
        assert fetcher.fetch(entry) == DATA
    finally:
        secure.stop()
    # Of the reader that is meant: beside obstore, boto3 was not needed.
    assert [request.split()[0] for request in secure.requests] == ["GET"]


def test_many_threads_read_at_once(fetcher: S3Fetcher, put: Put) -> None:
    entries = [put(f"{number}.jpg", DATA + bytes([number])) for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(fetcher.fetch, entries * 3))
    assert read == [DATA + bytes([number]) for number in range(20)] * 3


@pytest.mark.parametrize("action", [503, 500, "reset", "cut"])
def test_a_fault_that_passes_leaves_no_trace(
    fetcher: S3Fetcher, put: Put, proxy: FaultProxy, action: Any
) -> None:
    entry = put("x.jpg")
    rule = proxy.add(Rule("^GET .*x.jpg", action, times=3))
    assert fetcher.fetch(entry) == DATA
    assert rule.seen == 3


def test_a_body_cut_short_is_read_on_from_where_it_ended(
    prefix: str, put: Put, proxy: FaultProxy
) -> None:
    entry = put("x.jpg", DATA * 30)
    proxy.add(Rule("^GET .*x.jpg", "cut", times=1))
    fetcher = S3Fetcher(S3Address(BUCKET, prefix), fast=False)
    ranges: list[str | None] = []
    fetcher.bucket.client.meta.events.register(
        "before-call.s3.GetObject",
        lambda params, **_: ranges.append(params["headers"].get("Range")),
    )
    assert fetcher.fetch(entry) == DATA * 30
    assert ranges[0] is None
    assert ranges[-1] is not None


def test_what_never_passes_for_one_image_is_its_own_fault(
    fetcher: S3Fetcher, put: Put, proxy: FaultProxy
) -> None:
    fetcher.bucket.patience_s = 0.5
    entry = put("x.jpg")
    proxy.add(Rule("^GET .*x.jpg", 503))
    with pytest.raises(TransientFault):
        fetcher.fetch(entry)
    assert fetcher.fetch(put("y.jpg")) == DATA


def test_gone_changed_denied_archived_and_too_large(
    fetcher: S3Fetcher, put: Put, proxy: FaultProxy
) -> None:
    put("other.jpg")
    assert status_of(fetcher, Entry("never.jpg", "0" * 32, 5)) == "not_found"
    changed = put("changed.jpg")
    put("changed.jpg", b"new")
    assert status_of(fetcher, changed) == "changed"
    denied = put("denied.jpg")
    proxy.add(Rule("^GET .*denied.jpg", 403))
    assert status_of(fetcher, denied) == "denied"
    archived = put("archived.jpg")
    proxy.add(Rule("^GET .*archived.jpg", 403, code="InvalidObjectState"))
    assert status_of(fetcher, archived) == "archived"
    encrypted = put("encrypted.jpg")
    proxy.add(Rule("^GET .*encrypted.jpg", 400, code="InvalidRequest"))
    assert status_of(fetcher, encrypted) == "fetch_failed"
    assert status_of(fetcher, Entry("x", "0", MAX_IMAGE_BYTES + 1)) == "too_large"


def test_a_change_while_it_is_read_is_noticed(prefix: str, put: Put, proxy: FaultProxy) -> None:
    entry = put("x.jpg", DATA * 30)
    fetcher = S3Fetcher(S3Address(BUCKET, prefix), fast=False)
    events = fetcher.bucket.client.meta.events
    events.register("needs-retry.s3.GetObject", lambda **_: put("x.jpg", DATA) and None)
    proxy.add(Rule("^GET .*x.jpg", "cut", times=1))
    assert status_of(fetcher, entry) == "changed"


@pytest.mark.parametrize(
    ("http_status", "code"),
    [(400, "ExpiredToken"), (403, "InvalidAccessKeyId"), (404, "NoSuchBucket")],
)
def test_a_fault_of_the_store_blames_no_image(
    fetcher: S3Fetcher, put: Put, proxy: FaultProxy, http_status: int, code: str
) -> None:
    entry = put("x.jpg")
    proxy.add(Rule("", http_status, code=code))
    with pytest.raises(StoreUnavailable, match="No image is blamed"):
        fetcher.fetch(entry)


def test_denied_and_not_found_need_a_store_that_can_be_listed(
    fetcher: S3Fetcher, put: Put, proxy: FaultProxy
) -> None:
    entry = put("x.jpg")
    proxy.add(Rule("", 403))
    with pytest.raises(StoreUnavailable, match="denies"):
        fetcher.fetch(entry)


def test_a_prefix_that_was_emptied_is_a_fault_of_the_store(
    fetcher: S3Fetcher, put: Put, client: Any, prefix: str
) -> None:
    entry = put("x.jpg")
    client.delete_object(Bucket=BUCKET, Key=f"{prefix}x.jpg")
    with pytest.raises(StoreUnavailable, match="is empty"):
        fetcher.fetch(entry)


def test_an_endpoint_that_is_gone_blames_no_image_and_may_come_back(
    fetcher: S3Fetcher, put: Put, proxy: FaultProxy
) -> None:
    fetcher.bucket.patience_s = 0.5
    entry = put("x.jpg")
    assert fetcher.fetch(entry) == DATA
    proxy.stop()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        fetcher.fetch(entry)
    proxy.start()
    assert fetcher.fetch(entry) == DATA


def test_a_public_bucket_needs_no_credentials(
    server: Server, prefix: str, put: Put, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(server, MotoServer):
        pytest.skip("moto, when it checks who asks, takes no requests from nobody")
    entry = put("x.jpg", ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StoreUnavailable, match="AWS_NO_SIGN_REQUEST"):
        S3Fetcher(S3Address(BUCKET, prefix)).fetch(entry)
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    for fast in (True, False):
        assert S3Fetcher(S3Address(BUCKET, prefix), fast=fast).fetch(entry) == DATA


def test_whoever_pays_says_so_in_every_request(
    prefix: str, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = put("x.jpg")
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    fetcher = S3Fetcher(S3Address(BUCKET, prefix), fast=False)
    sent: list[str | None] = []
    fetcher.bucket.client.meta.events.register(
        "before-call.s3", lambda params, **_: sent.append(params["headers"].get(PAYER))
    )
    assert fetcher.fetch(entry) == DATA
    fetcher.check()
    assert sent == ["requester", "requester"]
