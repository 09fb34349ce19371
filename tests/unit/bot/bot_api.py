"""A server on loopback that speaks enough of Telegram's Bot API."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

TOKEN = "123456:secret-token-of-the-bot"
BOT = {"id": 123456, "is_bot": True, "first_name": "Label", "username": "label_bot"}
WAIT_S = 60


class BotApi:
    """Users' side of Telegram: `send` what they say, `said` gives what the bot answers."""

    def __init__(self) -> None:
        self.updates: queue.Queue[dict[str, Any]] = queue.Queue()
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.files: dict[str, bytes] = {}
        self.sent = 0
        self.token = TOKEN
        self.url = ""

    def send(self, user: int = 7, chat: str = "private", **content: Any) -> int:
        """Let a user send a message; return its number."""
        self.sent += 1
        sender = {"id": user, "is_bot": False, "first_name": "User"}
        message = {
            "message_id": self.sent,
            "date": 1,
            "chat": {"id": user, "type": chat},
            "from": sender,
            **content,
        }
        text = content.get("text", "")
        if text.startswith("/"):
            length = len(text.split()[0])
            message["entities"] = [{"type": "bot_command", "offset": 0, "length": length}]
        self.updates.put({"update_id": self.sent, "message": message})
        return self.sent

    def send_photo(self, data: bytes, **content: Any) -> int:
        """Let a user send a photo."""
        return self.send(photo=[{**self.file(data), "width": 9, "height": 9}], **content)

    def file(self, data: bytes) -> dict[str, Any]:
        """Store a file, as Telegram does before it tells the bot; return how it is told."""
        name = f"file-{len(self.files)}"
        self.files[name] = data
        return {"file_id": name, "file_unique_id": name, "file_size": len(data)}

    def said(self) -> dict[str, Any]:
        """Wait for the bot's next message: its parameters, and `method`."""
        return self.answers.get(timeout=WAIT_S)

    def answer(self, method: str, values: dict[str, Any]) -> Any:
        if method == "getMe":
            return BOT
        if method == "getUpdates":
            return self._take_updates()
        if method == "getFile":
            name = values["file_id"]
            return {"file_id": name, "file_unique_id": name, "file_path": name}
        if method in ("sendMessage", "sendPhoto"):
            self.answers.put({"method": method, **values})
            chat = {"id": int(values["chat_id"]), "type": "private"}
            return {"message_id": 10**6, "date": 1, "chat": chat, "text": "sent"}
        return True

    def _take_updates(self) -> list[dict[str, Any]]:
        try:
            found = [self.updates.get(timeout=0.2)]
        except queue.Empty:
            return []
        while not self.updates.empty():
            found.append(self.updates.get())
        return found


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: BotApi

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token, _, method = self.path.removeprefix("/bot").partition("/")
        if token != self.api.token:
            self._send(401, {"ok": False, "error_code": 401, "description": "Unauthorized"})
            return
        self._send(200, {"ok": True, "result": self.api.answer(method, self._values(body))})

    def do_GET(self) -> None:
        self._send_bytes(200, self.api.files[self.path.rpartition("/")[2]], "application/x")

    def _values(self, body: bytes) -> dict[str, Any]:
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/"):
            parts = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
            return {
                str(part.get_param("name", header="content-disposition")): part.get_payload(
                    decode=True
                )
                for part in parts.get_payload()  # type: ignore[union-attr]
            } | {"chat_id": "7"}
        return {name: values[0] for name, values in parse_qs(body.decode()).items()}

    def _send(self, status: int, content: dict[str, Any]) -> None:
        self._send_bytes(status, json.dumps(content).encode(), "application/json")

    def _send_bytes(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def bot_api() -> Iterator[BotApi]:
    api = BotApi()
    handler = type("BoundHandler", (Handler,), {"api": api})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api.url = f"http://127.0.0.1:{server.server_port}"
        yield api
        server.shutdown()
