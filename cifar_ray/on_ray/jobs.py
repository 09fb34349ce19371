"""Jobs on a cluster, through Ray's Jobs API: what runs, its log, its end."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_fixed

from cifar_ray.config.job import without_credentials
from cifar_ray.errors import CifarRayError, InputError
from cifar_ray.on_ray.session import client_token

STOPPED_EXIT_CODE = 130
"""Of a job that was stopped, as of a command that was interrupted."""
UNKNOWN_EXIT_CODE = 1
AGENT_TIMEOUT_S = 60.0
"""A cluster that has just started has no agent yet that could take a job."""
POLL_INTERVAL_S = 0.5
VERSION, VERB, DIGEST, DESTINATION = "cifar_ray", "verb", "spec", "destination"
"""Keys of a job's metadata."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job of ours as the cluster knows it."""

    id: str
    verb: str
    destination: str
    version: str
    status: str
    started_at: str | None
    ended_at: str | None
    exit_code: int | None
    """None while it lives."""
    message: str

    @property
    def alive(self) -> bool:
        """Whether it waits or runs."""
        return self.exit_code is None


class Jobs:
    """The jobs of one cluster, by the address of its dashboard."""

    def __init__(self, address: str) -> None:
        """Connect; `InputError` if nobody is there, or the token is missing or wrong."""
        self.address = without_credentials(address if "://" in address else f"http://{address}")
        with self._asking(), client_token(self.address):
            self.client = JobSubmissionClient(self.address)

    def ray_version(self) -> str | None:
        """Return what Ray the cluster runs."""
        # Read when the client connected; `get_version` tells the version of the API instead.
        return self.client._server_ray_version

    def submit(
        self, entrypoint: str, job_id: str, runtime_env: dict[str, Any], metadata: dict[str, str]
    ) -> bool:
        """Start a job; False if there is one of that name, which Ray refuses to start again."""
        agents = Retrying(
            retry=retry_if_exception_message(match=r"(?s).*No available agent"),
            stop=stop_after_delay(AGENT_TIMEOUT_S),
            wait=wait_fixed(1),
            reraise=True,
        )
        try:
            with self._asking():
                agents(
                    self.client.submit_job,
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env=runtime_env,
                    metadata=metadata,
                )
        except _JobExists:
            return False
        return True

    def rows(self) -> list[JobRow]:
        """Return the jobs that `cifar-ray submit` started, newest first."""
        with self._asking():
            found = self.client.list_jobs()
        ours = (job for job in found if job.submission_id and VERSION in (job.metadata or {}))
        return [_row(job) for job in sorted(ours, key=lambda job: -(job.start_time or 0))]

    def row(self, job_id: str) -> JobRow:
        """Return one job; `InputError` that names the others if there is none."""
        for row in (rows := self.rows()):
            if row.id == job_id:
                return row
        known = ", ".join(row.id for row in rows[:10]) or "none"
        raise InputError(f"There is no job {job_id} at {self.address}. Jobs there: {known}.")

    def log(self, job_id: str) -> str:
        """Return what a job has printed so far."""
        self.row(job_id)
        with self._asking():
            text: str = self.client.get_job_logs(job_id)
            return text

    def follow(self, job_id: str) -> Iterator[str]:
        """Yield what a job prints until it ends. Ctrl-C ends the following, not the job."""
        self.row(job_id)
        with self._asking(), asyncio.Runner() as runner:
            chunks = self.client.tail_job_logs(job_id)
            while (chunk := runner.run(_next(chunks))) is not None:
                yield chunk

    def wait(self, job_id: str) -> JobRow:
        """Wait until a job has ended."""
        while (row := self.row(job_id)).alive:
            time.sleep(POLL_INTERVAL_S)
        return row

    def stop(self, job_id: str) -> bool:
        """Ask a job to stop; False if it has ended already."""
        if not self.row(job_id).alive:
            return False
        with self._asking():
            stopped: bool = self.client.stop_job(job_id)
        return stopped

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what Ray's client raises into errors of ours."""
        try:
            yield
        except AuthenticationError as error:
            raise InputError(
                f"The cluster at {self.address} wants its token: put it into a file that only you "
                "can read, and name the file with RAY_AUTH_TOKEN_PATH, with RAY_AUTH_MODE=token."
            ) from error
        except (ConnectionError, requests.RequestException, aiohttp.ClientError) as error:
            raise InputError(
                f"No Ray dashboard answers at {self.address}. --address takes the dashboard's "
                "address, such as http://127.0.0.1:8265; `cifar-ray cluster dashboard` opens a "
                "tunnel to one that is far away."
            ) from error
        except RuntimeError as error:
            if "already exists" in str(error):
                raise _JobExists from error
            lines = str(error).strip().splitlines()
            raise CifarRayError(f"The cluster at {self.address} refused: {lines[-1]}") from error


class _JobExists(Exception):
    pass


async def _next(chunks: AsyncIterator[str]) -> str | None:
    return await anext(chunks, None)


def _row(job: JobDetails) -> JobRow:
    metadata = job.metadata or {}
    return JobRow(
        id=job.submission_id or "",
        verb=metadata.get(VERB, ""),
        destination=metadata.get(DESTINATION, ""),
        version=metadata[VERSION],
        status=str(job.status),
        started_at=_time(job.start_time),
        ended_at=_time(job.end_time),
        exit_code=_exit_code(job),
        message=(job.message or "").strip(),
    )


def _exit_code(job: JobDetails) -> int | None:
    if not job.status.is_terminal():
        return None
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        return STOPPED_EXIT_CODE
    return job.driver_exit_code or UNKNOWN_EXIT_CODE


def _time(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
