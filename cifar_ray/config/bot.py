"""How a bot runs; its secrets come from the environment and stay out of every text."""

from collections.abc import Mapping

from pydantic import Field, SecretStr

from cifar_ray.config.addresses import SERVICE_URL, TELEGRAM_URL
from cifar_ray.config.frozen import FrozenConfig
from cifar_ray.config.serving import is_sendable, origin_of
from cifar_ray.errors import InputError

TOKEN_VARIABLE = "CIFAR_RAY_BOT_TOKEN"
KEY_VARIABLE = "CIFAR_RAY_API_KEY"


class BotSettings(FrozenConfig):
    """Where a bot listens and whom it asks."""

    token: SecretStr
    service_url: str = SERVICE_URL
    api_key: SecretStr | None = None
    telegram_url: str = TELEGRAM_URL
    """Of the Bot API: Telegram's own, or a server that one runs oneself."""
    images_per_minute: int = Field(20, gt=0)
    """That one user may send."""
    patience_s: float = Field(20.0, ge=0)
    """For a service that is away, as it is while it restarts."""


def settings_from(
    environment: Mapping[str, str], service_url: str, telegram_url: str, images_per_minute: int
) -> BotSettings:
    """Return the settings; `InputError` without a token, or for what is no address or key."""
    token = environment.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise InputError(
            f"The bot's token is missing. Set {TOKEN_VARIABLE} to the one that @BotFather gave "
            "you; it is taken from the environment only, so that no list of processes shows it."
        )
    for option, url in (("--service", service_url), ("--telegram", telegram_url)):
        try:
            origin_of(url)
        except ValueError as error:
            raise InputError(f"{option} {url}: {error}.") from error
    key = environment.get(KEY_VARIABLE, "").strip()
    if not is_sendable(key):
        raise InputError(
            f"{KEY_VARIABLE} holds characters that are no ASCII, and no service lets such a key "
            "in. Set it to one of the keys in the service's --api-key-file."
        )
    return BotSettings(
        token=SecretStr(token),
        service_url=service_url.rstrip("/"),
        api_key=SecretStr(key) if key else None,
        telegram_url=telegram_url.rstrip("/"),
        images_per_minute=images_per_minute,
    )
