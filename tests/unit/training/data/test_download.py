"""Downloading CIFAR-10, from a server of ours on loopback."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cifar_ray.errors import InputError
from cifar_ray.training.data.download import (
    BATCHES,
    CIFAR10_BINARY,
    FILES,
    Archive,
    download_cifar10,
)

CONTENT = {name: name.encode() * 1000 for name in FILES}


def pack(names: tuple[str, ...] = FILES) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in (*(f"{BATCHES}/{name}" for name in names), "../outside.txt"):
            content = CONTENT.get(Path(name).name, b"outside")
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `data`, with ranges; after `cut_after` bytes of a first answer it hangs up."""

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.cut_after: int | None = None
        self.ranges: list[str | None] = []

    def archive(self, data: bytes) -> Archive:
        return Archive(
            url=f"http://127.0.0.1:{self.server_port}/cifar.tar.gz",
            size_bytes=len(data),
            md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
            sha256=hashlib.sha256(data).hexdigest(),
        )


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        body = self.server.data[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut_after])
        self.server.cut_after = None

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(pack()) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / BATCHES).iterdir()}


def test_download_gives_the_six_files_and_nothing_else(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    archive = server.archive(server.data)
    batches = download_cifar10(tmp_path / "cache", lambda *at: seen.append(at), archive)
    assert batches == tmp_path / "cache" / BATCHES
    assert held(tmp_path / "cache") == CONTENT
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [BATCHES]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert seen[-1] == (len(server.data), len(server.data))


def test_what_is_there_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    archive = server.archive(server.data)
    download_cifar10(tmp_path, archive=archive)
    download_cifar10(tmp_path, archive=archive)
    assert server.ranges == [None]


def test_a_download_that_was_cut_off_goes_on(server: Server, tmp_path: Path) -> None:
    archive = server.archive(server.data)
    server.cut_after = 200
    with pytest.raises(InputError, match="go on"):
        download_cifar10(tmp_path, archive=archive)
    assert not (tmp_path / BATCHES).exists()
    download_cifar10(tmp_path, archive=archive)
    assert held(tmp_path) == CONTENT
    assert server.ranges == [None, "bytes=200-"]


def test_another_file_is_refused_and_deleted(server: Server, tmp_path: Path) -> None:
    archive = server.archive(server.data)
    server.data = bytes(len(server.data))
    with pytest.raises(InputError, match="not the archive"):
        download_cifar10(tmp_path, archive=archive)
    assert list(tmp_path.iterdir()) == []


def test_without_a_server_the_error_says_what_to_do(tmp_path: Path) -> None:
    with Server(b"") as closed:
        archive = closed.archive(b"x")
    with pytest.raises(InputError, match=r"Cannot download .*CIFAR_RAY_DATA"):
        download_cifar10(tmp_path, archive=archive)


def test_the_official_archive_is_the_one_that_its_makers_publish() -> None:
    assert CIFAR10_BINARY.md5 == "c32a1d4ab5d03f1284b67883e8d87530"
    assert CIFAR10_BINARY.url.startswith("https://www.cs.toronto.edu/")
