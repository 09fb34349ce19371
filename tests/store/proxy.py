"""A proxy before an S3 server that does to its clients what networks and stores do."""

import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import unquote

HOP_HEADERS = {"connection", "expect", "keep-alive", "transfer-encoding", "content-length"}
CODES = {403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 503: "SlowDown"}


@dataclass
class Rule:
    """What happens to requests whose `METHOD path?query` (unquoted) matches, `times` times."""

    pattern: str
    action: Literal["reset", "cut", "hold"] | int
    times: float = float("inf")
    code: str = ""
    seen: int = 0


@dataclass
class FaultProxy:
    """Listens on a port of its own; `rules` and `latency_s` may change at any time."""

    upstream: tuple[str, int]
    rules: list[Rule] = field(default_factory=list)
    latency_s: float = 0.0
    requests: list[str] = field(default_factory=list)
    port: int = 0
    tls: ssl.SSLContext | None = None
    """With it, clients are answered over TLS."""
    released: threading.Event = field(default_factory=threading.Event)
    """Ends the waiting of requests that a rule holds."""

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", self.port), handler)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections and end those that are open."""
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def add(self, rule: Rule) -> Rule:
        self.rules.insert(0, rule)
        return rule

    @contextmanager
    def connection(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)

    def take(self, request: str) -> Rule | None:
        """Return the rule for a request, and count it."""
        with self._lock:
            self.requests.append(request)
            for rule in self.rules:
                if rule.seen < rule.times and re.search(rule.pattern, request):
                    rule.seen += 1
                    return rule
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def shutdown_request(self, request: Any) -> None:
        """Close at once, where the inherited method would first say goodbye."""
        self.close_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultProxy

    def handle(self) -> None:
        with self.proxy.connection(self.connection):
            self.upstream = HTTPConnection(*self.proxy.upstream)
            try:
                super().handle()
            finally:
                self.upstream.close()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rule = self.proxy.take(f"{self.command} {unquote(self.path)}")
        time.sleep(self.proxy.latency_s)
        if rule is not None and rule.action == "hold":
            self.proxy.released.wait()
        if rule is None or rule.action == "hold":
            self._send(*self._forward(body))
        elif rule.action == "reset":
            self._reset()
        elif rule.action == "cut":
            status, headers, whole = self._forward(body)
            self._send(status, headers, whole, whole[: len(whole) // 2])
            self.close_connection = True
        else:
            code = rule.code or CODES[rule.action]
            text = f"<Error><Code>{code}</Code><Message>planted</Message></Error>"
            self._send(rule.action, [("Content-Type", "application/xml")], text.encode())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP_HEADERS:
                self.upstream.putheader(name, value)
        if body or self.command in ("PUT", "POST"):
            self.upstream.putheader("Content-Length", str(len(body)))
        self.upstream.endheaders(body)
        response = self.upstream.getresponse()
        headers = [item for item in response.getheaders() if item[0].lower() not in HOP_HEADERS]
        if self.command == "HEAD":
            headers.append(("Content-Length", response.getheader("Content-Length") or "0"))
        return response.status, headers, response.read()

    def _send(
        self,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
        sent: bytes | None = None,
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if sent is None else sent)
            self.wfile.flush()

    def _reset(self) -> None:
        """Let the server's `close_request` send a reset."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
