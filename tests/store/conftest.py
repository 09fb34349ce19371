"""S3 servers for these tests: one of each kind a session, with one bucket; a prefix a test."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.required import require
from tests.store.proxy import FaultProxy
from tests.store.servers import REGION, CephServer, MotoServer, Server, client_of, running

HERE = Path(__file__).resolve().parent
BUCKET = "images"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker("store")
        # Forms need no more of a store than the other tests try; Ceph takes its time.
        if item.path.name == "test_s3_forms.py" and "ceph" in item.name:
            item.add_marker("slow")


@pytest.fixture(scope="session", params=["moto", "ceph"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A running server; the tests run on each kind."""
    if request.param == "ceph":
        programs = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")
        require("ceph", all(map(shutil.which, programs)), "Debian's ceph-mon ceph-osd radosgw")
    # Ceph's sockets lie below it, and a socket's path has 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="ceph-") as folder:
        server: Server = CephServer(Path(folder)) if request.param == "ceph" else MotoServer()
        with running(server, BUCKET):
            yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    """What stands between the server and the program under test."""
    proxy = FaultProxy(("127.0.0.1", server.port))
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture(autouse=True)
def environment(server: Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let boto3 find the proxy and the user, and nothing of this machine's."""
    unset = (
        *("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"),
        *("AWS_NO_SIGN_REQUEST", "AWS_REQUEST_PAYER"),
    )
    for name in unset:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")


@pytest.fixture
def client(server: Server) -> Any:
    """A client of the test's own, past the proxy."""
    return client_of(server, server.port)


@pytest.fixture
def prefix() -> str:
    """A test's own part of the bucket."""
    return f"{uuid.uuid4().hex}/"


@pytest.fixture
def place(prefix: str) -> str:
    """The test's own part of the bucket, as a uri."""
    return f"s3://{BUCKET}/{prefix.rstrip('/')}"
