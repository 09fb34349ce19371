"""Who is let in, what browsers may do with answers, and what is counted: around every request."""

import hmac
import time
from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cifar_ray.config.serving import digest_of_key
from cifar_ray.serving.metrics import ServiceMetrics
from cifar_ray.serving.problems import Problem

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_header = APIKeyHeader(name="X-API-Key", auto_error=False)
_bearer = HTTPBearer(auto_error=False)


class KeyCheck:
    """A dependency that lets nobody in without one of the keys, if there are any."""

    def __init__(self, digests: tuple[str, ...]) -> None:
        self._digests = digests

    def __call__(
        self,
        key: Annotated[str | None, Security(_header)],
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> None:
        """Raise `Problem` 401 for a request without a key."""
        if not self._digests:
            return
        given = digest_of_key(key or (bearer.credentials if bearer else ""))
        # Every digest is compared, so that the time tells nothing.
        if not sum(hmac.compare_digest(given, digest) for digest in self._digests):
            raise Problem(
                401,
                "key_needed",
                "Give an API key, as X-API-Key or as a bearer token.",
                {"WWW-Authenticate": "Bearer"},
            )


class Counted:
    """Counts and times requests by route, and adds the headers that every answer has."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            # The route's own pattern: what a client makes up would be a label each.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
