"""The bot as a process of its own, between a service and a Bot API, both on loopback."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from cifar_ray.bot import texts
from cifar_ray.config.bot import KEY_VARIABLE, TOKEN_VARIABLE
from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.serving import ServiceConfig, digest_of_key
from cifar_ray.serving.app import create_app
from cifar_ray.serving.service import Service
from tests.serving import free_port, over_http
from tests.unit.bot.bot_api import TOKEN, BotApi, bot_api
from tests.unit.models.bundles import make_bundle

REPOSITORY = Path(__file__).resolve().parents[3]
KEY = "the key of the service"
IMAGES_PER_MINUTE = 10
LABELS = ("apple_pie", "*bold*", "<b>pear</b>")


@dataclass
class Bot:
    api: BotApi
    service: Service
    port: int
    log: Path

    def restart_service(self) -> Iterator[str]:
        with over_http(create_app(self.service), self.port) as url:
            yield url


def png(colour: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    bundle = make_bundle(folder, temperature=1.0, labels=LABELS)
    execution = ExecutionRequest(device="cpu", backend="torch", precision="float32")
    config = ServiceConfig(
        models={"drawn": str(bundle.path)},
        default_model="drawn",
        execution=execution,
        batch_sizes=(1,),
        api_key_digests=(digest_of_key(KEY),),
    )
    return Service(config)


@pytest.fixture(scope="module")
def bot(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    """A bot whose service is not running yet."""
    log = tmp_path_factory.mktemp("bot") / "log.txt"
    port = free_port()
    with bot_api() as api, log.open("wb") as output:
        command = [sys.executable, "-m", "cifar_ray", "bot", "--telegram", api.url]
        command += ["--service", f"http://127.0.0.1:{port}"]
        command += ["--images-per-minute", str(IMAGES_PER_MINUTE)]
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, TOKEN_VARIABLE: TOKEN, KEY_VARIABLE: KEY},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Bot(api, service, port, log)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


@pytest.fixture
def running(bot: Bot) -> Iterator[Bot]:
    """The bot, and the service behind it, which each test starts anew."""
    with over_http(create_app(bot.service), bot.port):
        yield bot


def test_pictures_wait_for_a_service_that_comes_back(bot: Bot) -> None:
    bot.api.send_photo(png("red"), user=1)
    with over_http(create_app(bot.service), bot.port):
        assert " – " in bot.api.said()["text"]
    bot.api.send_photo(png("red"), user=1)
    with over_http(create_app(bot.service), bot.port):
        assert " – " in bot.api.said()["text"]


def test_a_photo_gets_its_label_and_the_next_two_as_an_answer_to_it(running: Bot) -> None:
    number = running.api.send_photo(png("green"), user=2)
    answer = running.api.said()
    first, second = answer["text"].splitlines()
    label, _, confidence = first.partition(" – ")
    others = second.removeprefix("Next: ").split(", ")
    assert {label, *(other.split(" ")[0] for other in others)} == set(LABELS)
    assert confidence.endswith(" %")
    assert f'"message_id": {number}' in answer["reply_parameters"]
    assert "parse_mode" not in answer  # a label's name formats nothing


def test_an_image_file_is_labelled_and_a_broken_one_gets_its_reason(running: Bot) -> None:
    for data, wanted in ((png("blue"), " – "), (b"no image", texts.FAULTS["not_an_image"])):
        file = {**running.api.file(data), "mime_type": "image/png", "file_name": "a.png"}
        running.api.send(user=3, document=file)
        assert wanted in running.api.said()["text"]


def test_an_album_gets_one_answer_with_a_line_a_picture(running: Bot) -> None:
    for colour in ("red", "green", "blue"):
        running.api.send_photo(png(colour), user=4, media_group_id="album")
    lines = running.api.said()["text"].splitlines()
    assert [line.partition(". ")[0] for line in lines] == ["1", "2", "3"]


def test_explain_shows_a_picture_for_a_caption_an_answer_and_the_last_one(running: Bot) -> None:
    running.api.send(text="/explain", user=5)
    assert running.api.said()["text"] == texts.EXPLAIN_WHAT
    running.api.send_photo(png("red"), user=5, caption="/explain")
    for content in ({}, {"reply_to_message": photo_message(running.api)}):
        explained = running.api.said()
        assert explained["method"] == "sendPhoto"
        assert b"glows" in explained["caption"]
        running.api.send(text="/explain", user=5, **content)
    assert running.api.said()["method"] == "sendPhoto"


def photo_message(api: BotApi) -> dict[str, object]:
    photo = {**api.file(png("blue")), "width": 9, "height": 9}
    return {"message_id": 1, "date": 1, "chat": {"id": 5, "type": "private"}, "photo": [photo]}


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ({"text": "/start"}, texts.START),
        ({"text": "/help"}, texts.HELP),
        ({"text": "/dance"}, texts.UNKNOWN_COMMAND),
        ({"text": "hello"}, texts.NO_IMAGE),
        ({"location": {"longitude": 1, "latitude": 1}}, texts.NO_IMAGE),
        (
            {"document": {"file_id": "a", "file_unique_id": "a", "mime_type": "text/plain"}},
            texts.NOT_AN_IMAGE_FILE,
        ),
        (
            {
                "video": {
                    "file_id": "a",
                    "file_unique_id": "a",
                    "width": 1,
                    "height": 1,
                    "duration": 1,
                }
            },
            texts.MOVING,
        ),
        (
            {
                "document": {
                    "file_id": "a",
                    "file_unique_id": "a",
                    "mime_type": "image/png",
                    "file_size": texts.MAX_FILE_BYTES + 1,
                }
            },
            texts.TOO_LARGE,
        ),
    ],
)
def test_everything_else_gets_a_friendly_answer(
    running: Bot, content: dict[str, object], answer: str
) -> None:
    running.api.send(user=6, **content)
    assert running.api.said()["text"] == answer


def test_model_is_what_the_service_says_of_it(running: Bot) -> None:
    running.api.send(text="/model", user=8)
    said = running.api.said()["text"]
    assert "cnn-122k" in said
    assert "apple_pie, *bold*, <b>pear</b>" in said


def test_in_a_group_only_pictures_and_commands_are_answered(running: Bot) -> None:
    running.api.send(text="hello", user=9, chat="group")
    running.api.send(text="/help", user=9, chat="group")
    assert running.api.said()["text"] == texts.HELP


def test_a_user_who_sends_too_much_is_slowed_down_and_others_are_not(running: Bot) -> None:
    for _ in range(IMAGES_PER_MINUTE + 1):
        running.api.send_photo(b"no image", user=10)
    said = [running.api.said()["text"] for _ in range(IMAGES_PER_MINUTE + 1)]
    assert sum("a lot of pictures" in text for text in said) == 1
    running.api.send_photo(png("red"), user=11)
    assert " – " in running.api.said()["text"]


def test_no_secret_is_in_the_log_though_a_download_failed(running: Bot) -> None:
    photo = {"file_id": "absent", "file_unique_id": "a", "width": 1, "height": 1}
    running.api.send(photo=[photo], user=12)
    running.api.send(text="/help", user=12)
    assert running.api.said()["text"] == texts.HELP
    written = running.log.read_text()
    assert "listens" in written
    for secret in (TOKEN, TOKEN.partition(":")[2], KEY):
        assert secret not in written


def run_bot(**variables: str) -> subprocess.CompletedProcess[str]:
    with bot_api() as api:
        return subprocess.run(
            [sys.executable, "-m", "cifar_ray", "bot", "--telegram", api.url],
            cwd=REPOSITORY,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )


def test_a_missing_and_a_refused_token_are_told_without_it() -> None:
    missing = run_bot(**{TOKEN_VARIABLE: ""})
    assert missing.returncode == 2
    assert TOKEN_VARIABLE in missing.stderr
    refused = run_bot(**{TOKEN_VARIABLE: "1:another-secret-token", "CIFAR_RAY_DEBUG": "1"})
    assert refused.returncode == 2
    assert "Telegram refuses the token" in refused.stderr
    assert "another-secret-token" not in refused.stdout + refused.stderr
