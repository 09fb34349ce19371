"""`cifar-ray bot`: labels in Telegram."""

import os
from importlib.util import find_spec
from typing import Annotated

import typer

from cifar_ray.cli.boundary import console
from cifar_ray.config.addresses import SERVICE_URL, TELEGRAM_URL
from cifar_ray.errors import InputError

EXAMPLES = """
[bold]Examples[/bold]

  CIFAR_RAY_BOT_TOKEN=… cifar-ray bot

  CIFAR_RAY_BOT_TOKEN=… CIFAR_RAY_API_KEY=… cifar-ray bot --service https://labels.example.com
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("bot", epilog=EXAMPLES)(bot)


def bot(
    service: Annotated[
        str, typer.Option(metavar="URL", help="Where `cifar-ray serve` answers.")
    ] = SERVICE_URL,
    telegram: Annotated[
        str, typer.Option(metavar="URL", help="A Bot API server other than Telegram's own.")
    ] = TELEGRAM_URL,
    images_per_minute: Annotated[
        int, typer.Option(min=1, help="Images that one user may send.")
    ] = 20,
) -> None:
    """Answer pictures in Telegram, until Ctrl-C. The token comes from CIFAR_RAY_BOT_TOKEN."""
    if find_spec("telegram") is None:
        raise InputError(
            "The bot needs python-telegram-bot. Install it: pip install 'cifar-ray[bot]'."
        )
    from cifar_ray.config.bot import settings_from

    settings = settings_from(os.environ, service, telegram, images_per_minute)
    from cifar_ray.bot.running import run_bot

    console.print("The bot listens. Ctrl-C ends it.")
    run_bot(settings)
