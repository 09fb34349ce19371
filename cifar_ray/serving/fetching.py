"""Fetches images by URL, from listed origins alone and never from inside a private network.

The name is resolved once and the connection goes to the address that was checked, so that a name
which changes its address in between leads nowhere. Nothing is redirected, no proxy or cookie of
this machine is used, and a failure says nothing about what is behind an address.
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpcore

from cifar_ray.config.serving import Limits, origin_of
from cifar_ray.errors import ImageFault
from cifar_ray.serving.uploads import Upload, too_large_file

SHARE_OF_TIME = 1 / 3
"""Of a request's time, for each address; the rest is for the labels."""
HEADERS = [("User-Agent", "cifar-ray"), ("Accept", "image/*"), ("Accept-Encoding", "identity")]
STATUSES = {401: "denied", 403: "denied", 404: "not_found", 410: "not_found"}
MAX_IDLE_CONNECTIONS = 10
FETCH_FAULTS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    OSError,
)


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the internet at large."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        # Addresses that carry another one, which may be private, in themselves.
        if ip in ipaddress.ip_network("64:ff9b::/96") or ip.teredo or ip.sixtofour:
            return False
        ip = ip.ipv4_mapped or ip
    return ip.is_global and not ip.is_multicast


class _CheckedNetwork(httpcore.AnyIOBackend):
    """Connects to a name only if all of its addresses may be reached, and then to one of them."""

    def __init__(self, may_reach: Callable[[str], bool]) -> None:
        self._may_reach = may_reach

    async def connect_tcp(
        self, host: str, port: int, *args: Any, **options: Any
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not all(map(self._may_reach, addresses)):
            raise httpcore.ConnectError("an address that may not be reached")
        return await super().connect_tcp(addresses[0], port, *args, **options)


@dataclass(slots=True)
class _Budget:
    """Bytes that the addresses of one request may still bring."""

    left: int

    def take(self, number: int) -> None:
        self.left -= number
        if self.left < 0:
            raise ImageFault("too_large", "the request's images have more bytes than are allowed")


class Fetcher:
    """Fetches from `origins` (as `origin_of` writes them)."""

    def __init__(
        self,
        origins: Iterable[str],
        limits: Limits,
        may_reach: Callable[[str], bool] = is_public,
    ) -> None:
        self._origins = frozenset(origins)
        self._limits = limits
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=limits.requests * limits.images,  # so that no address waits for others
            max_keepalive_connections=MAX_IDLE_CONNECTIONS,
            network_backend=_CheckedNetwork(may_reach),
        )

    @property
    def enabled(self) -> bool:
        """Whether any URL may be fetched."""
        return bool(self._origins)

    async def fetch_all(self, urls: Sequence[str]) -> list[Upload]:
        """Return the bytes, or the fault, of each address in a request."""
        budget = _Budget(self._limits.request_bytes)
        return list(await asyncio.gather(*(self._fetch_or_fault(url, budget) for url in urls)))

    async def _fetch_or_fault(self, url: str, budget: _Budget) -> Upload:
        try:
            return await self._fetch(url, budget)
        except ImageFault as fault:
            return fault

    async def _fetch(self, url: str, budget: _Budget) -> bytes:
        try:
            allowed = origin_of(url) in self._origins
        except ValueError as error:
            raise ImageFault("denied", "not an address of the web") from error
        if not allowed:
            raise ImageFault("denied", "the service does not fetch from there")
        if not (url.isascii() and url.isprintable()):
            raise ImageFault("denied", "an address is written in ASCII, the rest percent-encoded")
        try:
            async with (
                asyncio.timeout(SHARE_OF_TIME * self._limits.request_s),
                self._pool.stream("GET", url, headers=HEADERS) as response,
            ):
                if response.status != 200:
                    status = STATUSES.get(response.status, "fetch_failed")
                    raise ImageFault(status, "the address gave no image")
                return await self._body(response.aiter_stream(), budget)
        except FETCH_FAULTS as error:
            raise ImageFault("fetch_failed", "the address could not be read") from error

    async def _body(self, stream: AsyncIterator[bytes], budget: _Budget) -> bytes:
        parts, received = [], 0
        async with aclosing(stream) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                received += len(chunk)
                if received > self._limits.image_bytes:
                    raise too_large_file()
                budget.take(len(chunk))
                parts.append(chunk)
        return b"".join(parts)
