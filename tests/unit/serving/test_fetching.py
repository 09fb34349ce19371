"""Images by URL: from listed places alone, and never from inside a network."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cifar_ray.config.serving import Limits, ServiceConfig, origin_of
from cifar_ray.errors import ImageFault
from cifar_ray.serving.fetching import Fetcher, is_public
from tests.unit.serving.conftest import MakeService, client_of

LIMITS = Limits(image_bytes=100)
AT_ONCE = 12
BODIES = {
    "/image": (200, b"bytes"),
    "/full": (200, b"x" * 100),
    "/large": (200, b"x" * 101),
    "/gone": (404, b""),
    "/together": (200, b"bytes"),
}


class Site(BaseHTTPRequestHandler):
    together: threading.Barrier

    def do_GET(self) -> None:
        if self.path == "/drip":
            self.drip()
            return
        if self.path == "/together":
            self.together.wait()
        status, body = BODIES.get(self.path, (302, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", "/image")
        self.end_headers()
        self.wfile.write(body)

    def drip(self) -> None:
        """Send a byte again and again, for longer than anybody waits for all of them."""
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):  # given up by who asked
            for _ in range(50):
                self.wfile.write(b"x")
                time.sleep(0.1)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    Site.together = threading.Barrier(AT_ONCE, timeout=60)
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch(fetcher: Fetcher, *urls: str) -> list[str]:
    """Return what each URL gives: its text, or the status of its fault."""
    got = asyncio.run(fetcher.fetch_all(urls))
    return [item.status if isinstance(item, ImageFault) else item.decode() for item in got]


def test_listed_places_give_images_and_faults_their_statuses(site: str) -> None:
    fetcher = Fetcher([site], LIMITS, may_reach=lambda address: True)
    paths = ("/image", "/large", "/gone", "/redirected")
    got = fetch(fetcher, *(site + path for path in paths))
    assert got == ["bytes", "too_large", "not_found", "fetch_failed"]


def test_a_json_list_of_urls_gets_a_result_each_in_its_order(
    make_service: MakeService, site: str, picture: bytes
) -> None:
    BODIES["/picture"] = (200, picture)
    service = make_service(url_origins=(site,))
    urls = [f"{site}/gone", f"{site}/picture", "https://elsewhere.example/a.png", f"{site}/image"]
    with client_of(service) as client:

        def statuses() -> list[str]:
            answer = client.post("/v1/predict", json=urls)
            assert answer.status_code == 200
            return [result["status"] for result in answer.json()["results"]]

        assert client.get("/v1/model").json()["urls"]
        assert statuses() == ["fetch_failed", "fetch_failed", "denied", "fetch_failed"]
        # The site is within this network, where nobody is let in but by a test.
        service.fetcher = Fetcher([site], service.config.limits, may_reach=lambda address: True)
        assert statuses() == ["not_found", "ok", "denied", "not_an_image"]


def test_one_address_that_drips_keeps_no_other_from_its_image(site: str) -> None:
    fetcher = Fetcher([site], Limits(request_s=6.0), may_reach=lambda address: True)
    assert fetch(fetcher, f"{site}/drip", f"{site}/image") == ["fetch_failed", "bytes"]


def test_the_addresses_of_a_request_share_its_bytes(site: str) -> None:
    limits = Limits(image_bytes=100, request_bytes=250)
    fetcher = Fetcher([site], limits, may_reach=lambda address: True)
    for _ in range(2):  # each request has its own
        got = fetch(fetcher, *[f"{site}/full"] * 4)
        assert Counter(got) == {"x" * 100: 2, "too_large": 2}


def test_no_address_waits_for_others(site: str) -> None:
    fetcher = Fetcher([site], LIMITS, may_reach=lambda address: True)
    assert fetch(fetcher, *[f"{site}/together"] * AT_ONCE) == ["bytes"] * AT_ONCE


def test_a_listed_name_that_leads_into_this_network_is_not_followed(site: str) -> None:
    assert fetch(Fetcher([site], LIMITS), f"{site}/image") == ["fetch_failed"]
    by_name = site.replace("127.0.0.1", "localhost")
    assert fetch(Fetcher([by_name], LIMITS), f"{by_name}/image") == ["fetch_failed"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/image",
        "https://images.example.com.evil.example/a",
        "https://images.example.com@evil.example/a",
        "https://images.example.com:8443/a",
        "http://images.example.com/a",
        "ftp://images.example.com/a",
        "file:///etc/passwd",
        "https://",
        "https://images.example.com:port/",
        "https://[::1/",
        "//images.example.com/a",
        "",
    ],
)
def test_everything_that_is_not_listed_is_denied(url: str) -> None:
    assert fetch(Fetcher(["https://images.example.com"], LIMITS), url) == ["denied"]


@pytest.mark.parametrize("path", ["/\r\nHost: a", "/\ud800", "/ü", "/\0"])
def test_odd_paths_are_denied_before_anything_is_asked(site: str, path: str) -> None:
    fetcher = Fetcher([site], LIMITS, may_reach=lambda address: True)
    assert fetch(fetcher, site + path) == ["denied"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_origins_are_compared_as_browsers_do() -> None:
    assert origin_of("HTTPS://Images.Example.com:443/a?b") == "https://images.example.com"
    assert origin_of("http://[2001:db8::1]:80/") == "http://[2001:db8::1]"
    with pytest.raises(ValueError, match="ends with its host"):
        ServiceConfig(
            models={"a": "b"}, default_model="a", url_origins=("https://example.com/path",)
        )
