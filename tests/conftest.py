"""What all tests share: reference images, drawn images, and no network for unit tests."""

import ipaddress
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.drawing import draw_folder
from tests.required import require

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Let processes of tests hear of Ctrl-C, also where a shell runs all this in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that takes `cifar_data` with `data`, so that `-m "not data"` is true."""
    for item in items:
        if "cifar_data" in getattr(item, "fixturenames", ()):
            item.add_marker("data")


@pytest.fixture(scope="session")
def cifar_data() -> Path:
    """The folder with `cifar10/train.parquet`, `cifar10/test.parquet` and `photos/*.JPEG`."""
    named = os.environ.get("CIFAR_RAY_DATA")
    root = Path(named) if named else REPOSITORY.parent / "shared"
    whole = (root / "cifar10" / "train.parquet").is_file() and (root / "photos").is_dir()
    require("data", whole, "neither CIFAR_RAY_DATA nor ../shared has cifar10/ and photos/")
    return root


@pytest.fixture
def drawn_images(tmp_path: Path) -> Path:
    """A folder of 24 drawn JPEG and PNG images, grey and coloured, 31 to 500 pixels wide."""
    folder = tmp_path / "drawn"
    draw_folder(folder, count=24)
    return folder


@pytest.fixture(autouse=True)
def refuse_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let unit tests reach this machine alone: a look at another address is an error."""
    if REPOSITORY / "tests" / "unit" not in request.path.parents:
        return
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def local_connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple):
            _refuse_unless_local(address[0])
        connect(self, address)

    def local_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_unless_local(host)
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", local_connect)
    monkeypatch.setattr(socket, "getaddrinfo", local_resolve)


def _refuse_unless_local(host: str | bytes | None) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return
    try:
        local = ipaddress.ip_address(name).is_loopback
    except ValueError:
        local = False
    if not local:
        pytest.fail(f"a unit test reached for the network: {name}")
