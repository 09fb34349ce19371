"""Parts of the bot that need no Telegram."""

import asyncio
import logging
import sys

import pytest
from pydantic import SecretStr

from cifar_ray.bot import texts
from cifar_ray.bot.allowance import Allowance
from cifar_ray.bot.client import Result, Score, ServiceAway, ServiceClient, ServiceRefused
from cifar_ray.bot.running import WithoutSecrets
from cifar_ray.config.bot import KEY_VARIABLE, BotSettings, settings_from
from cifar_ray.config.serving import Limits, digest_of_key
from cifar_ray.errors import InputError
from cifar_ray.serving.app import create_app
from tests.serving import free_port, over_http
from tests.unit.serving.conftest import MakeService


def test_an_allowance_fills_evenly_for_each_user_alone() -> None:
    now = 0.0
    allowance = Allowance(6, clock=lambda: now)
    assert [allowance.take(1) for _ in range(7)] == [0, 0, 0, 0, 0, 0, 10]
    assert allowance.take(2, images=6) == 0
    now = 10.0
    assert [allowance.take(1), allowance.take(1)] == [0, 10]
    now = 1000.0
    assert allowance.take(1, images=9) == 0  # an album larger than the bucket
    assert allowance.take(1) == 10


def test_a_service_that_stays_away_is_told_apart_from_one_that_refuses() -> None:
    port = free_port()
    settings = BotSettings(
        token=SecretStr("t"), service_url=f"http://127.0.0.1:{port}", patience_s=0.0
    )

    async def ask() -> None:
        client = ServiceClient(settings)
        try:
            await client.label([b"no image"])
        finally:
            await client.close()

    with pytest.raises(ServiceAway):
        asyncio.run(ask())


def test_a_request_that_the_service_refuses_says_why(make_service: MakeService) -> None:
    app = create_app(make_service(limits={"images": 1}))
    with over_http(app, free_port()) as url:
        settings = BotSettings(token=SecretStr("t"), service_url=url)
        with pytest.raises(ServiceRefused, match="1 images"):
            asyncio.run(ServiceClient(settings).label([b"a", b"b"]))


def test_an_album_of_more_bytes_than_a_request_may_have_is_labelled(
    make_service: MakeService,
) -> None:
    files = [b"no image".ljust(6 * 10**6)] * 9
    assert sum(map(len, files)) > Limits().request_bytes
    with over_http(create_app(make_service()), free_port()) as url:
        settings = BotSettings(token=SecretStr("t"), service_url=url, patience_s=0.0)
        results = asyncio.run(ServiceClient(settings).label(files))
    assert [result.status for result in results] == ["not_an_image"] * 9


def test_no_file_is_promised_a_look_that_the_service_refuses() -> None:
    assert Limits().image_bytes >= texts.MAX_FILE_BYTES
    assert f"up to {texts.MAX_FILE_BYTES // 10**6} MB" in texts.HELP


def test_a_key_that_the_service_does_not_know_is_the_operator_s_matter(
    make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service(api_key_digests=(digest_of_key("another key of somebody"),))
    with over_http(create_app(service), free_port()) as url:
        settings = BotSettings(token=SecretStr("t"), service_url=url, api_key=SecretStr("wrong"))
        with pytest.raises(ServiceAway):
            asyncio.run(ServiceClient(settings).label([b"no image"]))
    assert KEY_VARIABLE in caplog.text
    assert "wrong" not in caplog.text


def test_probabilities_are_never_said_to_be_certain() -> None:
    assert [texts.percent(share) for share in (0.934, 0.999, 0.004, 0.0)] == [
        "93 %",
        "> 99 %",
        "< 1 %",
        "0 %",
    ]
    top = (Score(label="cat", score=0.8), Score(label="dog", score=0.1))
    result = Result(status="ok", error=None, confidence=None, top=top, explanation=None)
    assert texts.answer([result]) == "cat – 80 % (not calibrated)\nNext: dog 10 %"


def test_secrets_are_blotted_out_of_messages_and_tracebacks() -> None:
    formatter = WithoutSecrets(["secret-token"])
    try:
        raise ValueError("at https://api/botsecret-token/getMe")
    except ValueError:
        record = logging.LogRecord(
            "a", logging.INFO, "", 1, "GET %s", ("secret-token",), sys.exc_info()
        )
    text = formatter.format(record)
    assert "GET …" in text
    assert "https://api/bot…/getMe" in text
    assert "secret-token" not in text


def test_settings_hide_the_token_and_refuse_what_is_no_address() -> None:
    environment = {"CIFAR_RAY_BOT_TOKEN": "1:secret"}
    settings = settings_from(environment, "http://127.0.0.1:8000/", "https://example.com", 3)
    assert "secret" not in repr(settings)
    assert settings.service_url == "http://127.0.0.1:8000"
    with pytest.raises(InputError, match="--service nowhere"):
        settings_from(environment, "nowhere", "https://example.com", 3)
    with pytest.raises(InputError, match=f"{KEY_VARIABLE} holds"):
        settings_from(
            {**environment, KEY_VARIABLE: "Schlüssel"}, "http://127.0.0.1", "https://example.com", 3
        )
