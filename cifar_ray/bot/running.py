"""Runs the bot by long polling until it is interrupted."""

import logging
from typing import Any

from telegram import Update
from telegram.error import InvalidToken, TelegramError
from telegram.ext import Application

from cifar_ray.bot.client import ServiceClient
from cifar_ray.bot.handlers import Handlers
from cifar_ray.config.bot import TOKEN_VARIABLE, BotSettings
from cifar_ray.errors import CifarRayError, InputError

CONCURRENT_UPDATES = 16
TIMEOUT_S = 20.0
TELLING = ("httpx", "httpcore", "telegram", "apscheduler")
"""Loggers of libraries: at INFO, httpx writes the address of each request, token and all."""


class WithoutSecrets(logging.Formatter):
    """Writes records, tracebacks included, with the secrets blotted out."""

    def __init__(self, secrets: list[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text."""
        return blotted(super().format(record), self._secrets)


def blotted(text: str, secrets: list[str]) -> str:
    """Return a text without the secrets."""
    for secret in secrets:
        text = text.replace(secret, "…")
    return text


def run_bot(settings: BotSettings) -> None:
    """Answer messages until Ctrl-C or SIGTERM. `InputError` if Telegram refuses the token."""
    secrets = [s.get_secret_value() for s in (settings.token, settings.api_key) if s]
    _write_logs_without(secrets)
    application = build(settings)
    try:
        application.run_polling(
            allowed_updates=[Update.MESSAGE],
            bootstrap_retries=-1,  # the network may come up after the bot
        )
    # Their texts may hold the token, and so may what they came from.
    except InvalidToken:
        raise InputError(
            f"Telegram refuses the token in {TOKEN_VARIABLE}. @BotFather shows the right one."
        ) from None
    except TelegramError as error:
        raise CifarRayError(blotted(f"Telegram: {error}", secrets)) from None


def build(settings: BotSettings) -> Application[Any, Any, Any, Any, Any, Any]:
    """Return the application with all handlers."""
    client = ServiceClient(settings)

    async def close(_: object) -> None:
        await client.close()

    application = (
        Application.builder()
        .token(settings.token.get_secret_value())
        .base_url(f"{settings.telegram_url}/bot")
        .base_file_url(f"{settings.telegram_url}/file/bot")
        .concurrent_updates(CONCURRENT_UPDATES)
        .connect_timeout(TIMEOUT_S)
        .read_timeout(TIMEOUT_S)
        .post_shutdown(close)
        .build()
    )
    Handlers(settings, client).add_to(application)
    return application


def _write_logs_without(secrets: list[str]) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(WithoutSecrets(secrets))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in TELLING:
        logging.getLogger(name).setLevel(logging.WARNING)
