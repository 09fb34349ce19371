"""Who is let in, and when nobody is."""

import asyncio
import threading
from collections.abc import AsyncIterator

import httpx
import pytest
from PIL import PngImagePlugin
from starlette.testclient import TestClient

from cifar_ray.config.addresses import answered_names, is_loopback
from cifar_ray.config.serving import digest_of_key
from cifar_ray.errors import InputError
from cifar_ray.serving.app import create_app
from cifar_ray.serving.service import Service
from tests.unit.images.hostile import chunk, png
from tests.unit.serving.conftest import MakeService, client_of

URL = "/v1/predict"
KEY = "0123456789abcdef"
PNG = {"content-type": "image/png"}


def test_without_keys_everybody_is_let_in_and_with_them_only_their_holders(
    make_service: MakeService, picture: bytes
) -> None:
    digests = (digest_of_key("another key of somebody"), digest_of_key(KEY))
    with client_of(make_service(api_key_digests=digests)) as client:

        def status(**headers: str) -> int:
            return client.post(URL, content=picture, headers={**PNG, **headers}).status_code

        assert status() == 401
        assert status(**{"X-API-Key": KEY + "0"}) == 401
        assert status(Authorization="Bearer wrong") == 401
        assert status(Authorization=f"Basic {KEY}") == 401
        assert status(**{"X-API-Key": KEY}) == 200
        assert status(Authorization=f"Bearer {KEY}") == 200
        guarded = [client.get(path).status_code for path in ("/v1/model", "/metrics")]
        assert guarded == [401, 401]
        opened = [client.get(path).status_code for path in ("/", "/healthz", "/readyz")]
        assert opened == [200, 200, 200]
        assert client.get("/v1/model").headers["WWW-Authenticate"] == "Bearer"


def test_other_origins_read_no_answer_unless_they_are_listed(make_service: MakeService) -> None:
    asked = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    with client_of(make_service()) as client:
        assert "access-control-allow-origin" not in client.get("/v1/model", headers=asked).headers
        assert client.options(URL, headers=asked).status_code == 405
    with client_of(make_service(cors_origins=("https://friend.example",))) as client:
        answer = client.options(URL, headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://friend.example"
        stranger = {**asked, "Origin": "https://stranger.example"}
        assert "access-control-allow-origin" not in client.options(URL, headers=stranger).headers


@pytest.mark.parametrize(
    ("host", "given", "answered"),
    [
        ("127.0.0.1", (), {"localhost", "127.0.0.1", "[::1]"}),
        ("::1", (), {"localhost", "127.0.0.1", "[::1]"}),
        ("192.0.2.7", (), {"localhost", "127.0.0.1", "[::1]", "192.0.2.7", "name", "evil.example"}),
        ("0.0.0.0", ("name",), {"localhost", "127.0.0.1", "[::1]", "name"}),
        ("192.0.2.7", ("name",), {"localhost", "127.0.0.1", "[::1]", "192.0.2.7", "name"}),
    ],
)
def test_a_name_that_was_pointed_at_this_machine_is_refused(
    make_service: MakeService, host: str, given: tuple[str, ...], answered: set[str]
) -> None:
    service = make_service(allowed_hosts=answered_names(host, given))
    asked = ("localhost", "127.0.0.1", "[::1]", "192.0.2.7", "name", "evil.example")
    with client_of(service) as client:
        codes = {
            name: client.get("/v1/model", headers={"Host": f"{name}:8000"}).status_code
            for name in asked
        }
    assert codes == {name: 200 if name in answered else 400 for name in asked}


def test_a_service_is_reached_by_others_unless_it_listens_on_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.7", "labels.example.com")))


def test_every_answer_forbids_scripts_of_others(client: TestClient) -> None:
    for path in ("/", "/v1/model", "/nothing"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert headers["x-content-type-options"] == "nosniff"


def ask(service: Service, number: int, content: AsyncIterator[bytes]) -> list[httpx.Response]:
    """Send requests to one event loop at the same time; the first one's body is `content`."""

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            bodies = [content, *[b"no image"] * (number - 1)]
            posts = [client.post(URL, content=body, headers=PNG) for body in bodies]
            return list(await asyncio.gather(*posts))

    return asyncio.run(run())


def test_more_requests_than_there_are_places_are_told_when_to_come_back(
    make_service: MakeService,
) -> None:
    service = make_service(limits={"requests": 1})

    async def until_another_was_refused() -> AsyncIterator[bytes]:
        refused = service.metrics.requests.labels(URL, "429")
        while not refused._value.get():
            await asyncio.sleep(0)
        yield b"no image"

    answers = ask(service, 2, until_another_was_refused())
    answered, refused = sorted(answers, key=lambda answer: answer.status_code)
    assert (answered.status_code, refused.status_code) == (200, 429)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["code"] == "busy"
    assert ask(service, 1, until_another_was_refused())[0].status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(make_service: MakeService) -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    service = make_service(limits={"request_s": 0.01})
    (answer,) = ask(service, 1, never())
    assert (answer.status_code, answer.json()["code"]) == (408, "timeout")
    assert service.gate.inside == 0


def test_a_model_that_does_not_answer_is_not_waited_for(
    make_service: MakeService, picture: bytes
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield picture

    service = make_service(limits={"request_s": 0.2})
    # Its threads are busy for good with something else.
    service.models["first"].batcher._running = 10**6
    (answer,) = ask(service, 1, body())
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert service.gate.inside == 0


def test_a_model_that_failed_makes_the_service_unready(make_service: MakeService) -> None:
    service = make_service()
    with client_of(service) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        service.models["second"].batcher.fault = RuntimeError("out of memory")
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200


def test_an_image_that_stalls_its_decoder_makes_the_service_unready_until_it_ends(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def stall(stream: PngImagePlugin.PngStream, _: int, length: int) -> bytes:
        released.wait()
        data: bytes = stream.fp.read(length)
        return data

    # A chunk that does to Pillow what a broken decoder may do.
    monkeypatch.setattr(PngImagePlugin.PngStream, "chunk_evIl", stall, raising=False)
    service = make_service(limits={"request_s": 0.1})
    stalling = png(8, 8, chunk(b"evIl", b"stall"))
    with client_of(service) as client:
        try:
            assert client.get("/readyz").status_code == 200
            assert client.post(URL, content=stalling, headers=PNG).status_code == 503
            while client.get("/readyz").status_code == 200:
                pass
        finally:
            released.set()
        while client.get("/readyz").status_code == 503:
            pass


def test_a_picture_of_the_evidence_is_seen_while_it_is_drawn(
    make_service: MakeService, picture: bytes
) -> None:
    service = make_service()

    async def explain() -> None:
        asked = asyncio.ensure_future(service.models["first"].explainer.explain(picture, 0))
        while not service.work.longest_s:
            assert not asked.done()
            await asyncio.sleep(0)
        await asked

    asyncio.run(explain())
    assert service.work.longest_s == 0


@pytest.mark.parametrize(
    "text", ["", "# a comment\n", "short\n", KEY + "\nshort\n", "ein langer Schlüssel"]
)
def test_a_file_of_keys_holds_long_ones_of_ascii(text: str) -> None:
    from cifar_ray.config.serving import key_digests

    with pytest.raises(InputError, match="at least 16 characters"):
        key_digests(text, "keys.txt")
