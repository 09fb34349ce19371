"""S3 servers that a test session starts: moto's from PyPI, and Ceph's where Debian's is there."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import boto3

REGION = "us-east-1"
START_S = 120.0


class Server(Protocol):
    """A server of S3 on this machine, and who may use it."""

    port: int
    access_key: str
    secret_key: str

    def start(self) -> None:
        """Return when it answers."""

    def stop(self) -> None:
        """End what was started."""


@dataclass
class MotoServer:
    """An emulator over a real socket, data in memory. It checks signatures as started here."""

    port: int = 0
    access_key: str = ""
    secret_key: str = ""

    def start(self) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            # After these three calls, which make a user, moto asks who is there.
            env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "3"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_port(self.port, self.process)
        iam = self._client("iam")
        iam.create_user(UserName="test")
        key = iam.create_access_key(UserName="test")["AccessKey"]
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [everything]}
        iam.put_user_policy(UserName="test", PolicyName="all", PolicyDocument=json.dumps(policy))
        self.access_key, self.secret_key = key["AccessKeyId"], key["SecretAccessKey"]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name=REGION,
            aws_access_key_id="none",
            aws_secret_access_key="none",
        )


@dataclass
class CephServer:
    """A monitor, one OSD and a gateway on loopback, data on disk; needs root and Debian's Ceph."""

    folder: Path
    port: int = 0
    access_key: str = "testkey"
    secret_key: str = "testsecret123"
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "ceph.conf"

    def start(self) -> None:
        self.port, monitor_port = free_port(), free_port()
        for name in ("run", "log", "mon", "osd/0", "rgw"):
            (self.folder / name).mkdir(parents=True)
        fsid = Path("/proc/sys/kernel/random/uuid").read_text().strip()
        template = (Path(__file__).parent / "ceph.conf").read_text()
        self.config.write_text(
            template.format(
                folder=self.folder, fsid=fsid, monitor_port=monitor_port, port=self.port
            )
        )
        monitors = self.folder / "monmap"
        address = f"[v2:127.0.0.1:{monitor_port}]"
        self._run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, str(monitors))
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(monitors))
        self._spawn("mon", "ceph-mon", "-i", "a", "-f")
        self._wait("mon", "ceph", "--connect-timeout", "2", "mon", "stat")
        osd = Path("/proc/sys/kernel/random/uuid").read_text().strip()
        self._run("ceph", "osd", "new", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._spawn("osd", "ceph-osd", "-i", "0", "-f")
        self._wait("osd", "ceph", "--connect-timeout", "2", "osd", "stat", answer=" 1 up")
        self.start_gateway()
        self._run(
            *("radosgw-admin", "-n", "client.admin", "--admin-socket=", "user", "create"),
            *("--uid=test", "--display-name=test", "--max-buckets=0"),
            *(f"--access-key={self.access_key}", f"--secret-key={self.secret_key}"),
        )

    def start_gateway(self) -> None:
        process = self._spawn("rgw", "radosgw", "-n", "client.rgw", "-f")
        wait_for_port(self.port, process)

    def kill_gateway(self) -> None:
        """Kill what answers; the data stays."""
        self.processes["rgw"].kill()
        self.processes["rgw"].wait()

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.kill()
            process.wait()

    def _spawn(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        with open(self.folder / f"{name}.out", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [*command, "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.processes[name]

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            env={**os.environ, "CEPH_CONF": str(self.config)},
            capture_output=True,
            text=True,
            timeout=START_S,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr[-2000:]}")
        return done.stdout

    def _wait(self, name: str, *command: str, answer: str = "") -> None:
        until = time.monotonic() + START_S
        while True:
            if self.processes[name].poll() is not None:
                raise RuntimeError((self.folder / f"{name}.out").read_text()[-2000:])
            try:
                if answer in self._run(*command):
                    return
            except RuntimeError:
                if time.monotonic() > until:
                    raise
            if time.monotonic() > until:
                raise RuntimeError(f"ceph's {name} did not start")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}") from None
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"nothing answers at port {port}")


S = TypeVar("S", bound=Server)


@contextmanager
def running(server: S, bucket: str) -> Iterator[S]:
    """Have a server with an empty bucket for the length of the block."""
    try:
        server.start()
        client_of(server, server.port).create_bucket(Bucket=bucket)
        yield server
    finally:
        server.stop()


def client_of(server: Server, port: int) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=REGION,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
