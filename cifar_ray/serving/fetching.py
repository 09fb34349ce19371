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
from typing import Any

import httpcore

from cifar_ray.config.serving import Limits, origin_of
from cifar_ray.errors import ImageFault
from cifar_ray.serving.uploads import Upload, too_large_file

TIMEOUT_S = 10.0
HEADERS = [("User-Agent", "cifar-ray"), ("Accept", "image/*"), ("Accept-Encoding", "identity")]
STATUSES = {401: "denied", 403: "denied", 404: "not_found", 410: "not_found"}
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
        self._pool = httpcore.AsyncConnectionPool(network_backend=_CheckedNetwork(may_reach))

    @property
    def enabled(self) -> bool:
        """Whether any URL may be fetched."""
        return bool(self._origins)

    async def fetch_all(self, urls: Sequence[str]) -> list[Upload]:
        """Return the bytes, or the fault, of each."""
        return list(await asyncio.gather(*map(self._fetch_or_fault, urls)))

    async def _fetch_or_fault(self, url: str) -> Upload:
        try:
            return await self._fetch(url)
        except ImageFault as fault:
            return fault

    async def _fetch(self, url: str) -> bytes:
        try:
            allowed = origin_of(url) in self._origins
        except ValueError as error:
            raise ImageFault("denied", "not an address of the web") from error
        if not allowed:
            raise ImageFault("denied", "the service does not fetch from there")
        if not (url.isascii() and url.isprintable()):
            raise ImageFault("denied", "an address is written in ASCII, the rest percent-encoded")
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_S)
        try:
            async with self._pool.stream(
                "GET", url, headers=HEADERS, extensions={"timeout": timeouts}
            ) as response:
                if response.status != 200:
                    status = STATUSES.get(response.status, "fetch_failed")
                    raise ImageFault(status, "the address gave no image")
                return await self._body(response.aiter_stream())
        except FETCH_FAULTS as error:
            raise ImageFault("fetch_failed", "the address could not be read") from error

    async def _body(self, stream: AsyncIterator[bytes]) -> bytes:
        parts, received = [], 0
        async with aclosing(stream) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                received += len(chunk)
                if received > self._limits.image_bytes:
                    raise too_large_file()
                parts.append(chunk)
        return b"".join(parts)
