"""What a spot machine of AWS can ask about itself, as far as we ask: a token, and when it ends."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

TOKEN = "of-the-metadata-service"


class MetadataServer(ThreadingHTTPServer):
    end: str | None = None
    """When the machine is taken away, as AWS writes it."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_PUT(self) -> None:
        known = self.path == "/latest/api/token"
        told = known and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        self._answer(200 if told else 400, TOKEN)

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != TOKEN:
            self._answer(401, "")
        elif self.path != "/latest/meta-data/spot/instance-action" or self.server.end is None:
            self._answer(404, "")
        else:
            self._answer(200, json.dumps({"action": "terminate", "time": self.server.end}))

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def metadata_server(end: str | None = None) -> Iterator[MetadataServer]:
    server = MetadataServer(("127.0.0.1", 0), _Handler)
    server.end = end
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
