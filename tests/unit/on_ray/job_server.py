"""The part of Ray's Jobs API that submitting uses, over a real socket, for tests without a Ray."""

import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class JobServer:
    """What it was given: jobs by submission id, and packages by name."""

    token: str | None = None
    ray_version: str = "2.60.0"
    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)
    hide_jobs: bool = False
    """Answer as if there were none yet: another client is faster."""
    agents_missing: int = 0
    """Requests that are answered as by a cluster which has just started."""

    def files(self, job_id: str) -> dict[str, bytes]:
        """Return what was shipped with a job."""
        uri = self.jobs[job_id]["runtime_env"]["working_dir"]
        with zipfile.ZipFile(io.BytesIO(self.packages[uri.rpartition("/")[2]])) as package:
            return {
                name: package.read(name) for name in package.namelist() if not name.endswith("/")
            }

    def end(self, job_id: str, status: str, exit_code: int | None = None) -> None:
        """Let a job end."""
        self.jobs[job_id] |= {"status": status, "driver_exit_code": exit_code}


class Handler(BaseHTTPRequestHandler):
    state: JobServer

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing."""

    def answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def refused(self) -> bool:
        token = self.state.token
        if token is None or self.headers.get("Authorization") == f"Bearer {token}":
            return False
        self.body()
        self.answer(401, "Unauthorized: Missing authentication token")
        return True

    def do_GET(self) -> None:
        if self.refused():
            return
        if self.path == "/api/version":
            self.answer(200, {"version": "4", "ray_version": self.state.ray_version})
        elif self.path == "/api/jobs/":
            self.answer(200, [] if self.state.hide_jobs else list(self.state.jobs.values()))
        else:
            known = self.path.rpartition("/")[2] in self.state.packages
            self.answer(200 if known else 404, {})

    def do_PUT(self) -> None:
        if not self.refused():
            self.state.packages[self.path.rpartition("/")[2]] = self.body()
            self.answer(200, {})

    def do_POST(self) -> None:
        if self.refused():
            return
        job = json.loads(self.body())
        if self.state.agents_missing:
            self.state.agents_missing -= 1
            self.answer(500, "No available agent to submit job, please try again later.")
        elif job["submission_id"] in self.state.jobs:
            self.answer(500, f"ValueError: Job {job['submission_id']} already exists.")
        else:
            known = {
                "type": "SUBMISSION",
                "status": "RUNNING",
                "start_time": time.time_ns() // 10**6,
            }
            self.state.jobs[job["submission_id"]] = {**job, **known}
            self.answer(200, {"job_id": "", "submission_id": job["submission_id"]})


@contextmanager
def job_server(**state: Any) -> Iterator[JobServer]:
    """Serve on loopback within the block."""
    server_state = JobServer(**state)
    handler = type("BoundHandler", (Handler,), {"state": server_state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server_state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server_state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
