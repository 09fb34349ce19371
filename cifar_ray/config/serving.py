"""What a service is: its models, what it lets in, and where it listens."""

import hashlib
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from cifar_ray.config.addresses import LOOPBACK, SERVE_PORT, in_url
from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.frozen import FrozenConfig
from cifar_ray.errors import InputError, printable

MIB = 2**20
MIN_KEY_CHARACTERS = 16
"""A key's digest travels with the configuration; a short key could be guessed from it."""


class Limits(FrozenConfig):
    """What a request may ask for; a replica's memory is bounded by them."""

    image_bytes: int = Field(16 * MIB, gt=0)
    request_bytes: int = Field(48 * MIB, gt=0)
    images: int = Field(32, gt=0)
    """In one request."""
    pixels: int = Field(50_000_000, gt=0)
    """Of one image, as its header says."""
    requests: int = Field(32, gt=0)
    """That a replica works on at the same time; more are answered 429."""
    request_s: float = Field(30.0, gt=0)
    """From a request's first byte to its answer."""


class ServiceConfig(FrozenConfig):
    """All that a replica needs to know; it holds digests of keys, never a key."""

    models: dict[str, str]
    """A bundle's folder by the name that requests give."""
    default_model: str
    execution: ExecutionRequest = ExecutionRequest()
    batch_sizes: tuple[int, ...] = (1, 4, 16)
    """Sizes that the model is loaded for; what waits is cut into these, so that none is padded."""
    limits: Limits = Limits()
    api_key_digests: tuple[str, ...] = ()
    """SHA-256 (hex) of each key; with none, everybody is let in."""
    url_origins: tuple[str, ...] = ()
    """`https://host[:port]` from which images are fetched; with none, no URL is."""
    cors_origins: tuple[str, ...] = ()
    """Web pages of other origins that may read answers."""
    allowed_hosts: tuple[str, ...] = ()
    """Names in the Host header that are answered; with none, all are."""

    @field_validator("batch_sizes")
    @classmethod
    def _one_is_among(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in sizes or min(sizes) < 1:
            raise ValueError("batch_sizes must be positive and have 1 among them")
        return tuple(sorted(set(sizes)))

    @field_validator("url_origins", "cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(origin_of(origin, exact=True) for origin in origins)

    @model_validator(mode="after")
    def _default_is_a_model(self) -> Self:
        if self.default_model not in self.models:
            raise ValueError(f"default_model {self.default_model!r} is none of models")
        return self


class ServerOptions(FrozenConfig):
    """Where the service runs and listens."""

    host: str = LOOPBACK
    port: int = Field(SERVE_PORT, ge=0, le=65535)
    replicas: int = Field(1, ge=1)
    address: str | None = None
    """Of a Ray cluster; None starts a Ray that ends with the service."""


def origin_of(url: str, exact: bool = False) -> str:
    """Return `scheme://host[:port]` in lower case, without the scheme's own port.

    `ValueError` if it is no http(s) URL, carries a user name, or with `exact` says more than that.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an http(s) address such as https://images.example.com")
    if exact and (parts.path.strip("/") or parts.query or parts.fragment):
        raise ValueError("an origin ends with its host or port, such as https://images.example.com")
    port = parts.port  # ValueError for one that is none
    standard = {"http": 80, "https": 443}[parts.scheme]
    origin = f"{parts.scheme}://{in_url(parts.hostname)}"
    return origin if port in (None, standard) else f"{origin}:{port}"


def key_digests(text: str, source: str) -> tuple[str, ...]:
    """Return the digests of a file's API keys, a line each; `#` begins a comment."""
    lines = (line.strip() for line in text.splitlines())
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys or not all(len(key) >= MIN_KEY_CHARACTERS and is_sendable(key) for key in keys):
        raise InputError(
            f"{printable(source)} must hold an API key a line, each of at least "
            f"{MIN_KEY_CHARACTERS} characters, all of them ASCII, which alone survives in an HTTP "
            "header. `openssl rand -hex 32` makes one."
        )
    return tuple(digest_of_key(key) for key in keys)


def is_sendable(key: str) -> bool:
    """Tell whether a key arrives in an HTTP header as it was sent."""
    return key.isascii() and key.isprintable()


def digest_of_key(key: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
