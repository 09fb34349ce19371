"""A bucket of any S3-compatible store: the one place where clients of boto3 are made and called.

Endpoint, region, profile, role and CA come from where boto3 looks for them (AWS_ENDPOINT_URL,
AWS_PROFILE, ~/.aws, the instance's role, …). Two settings that it lacks have the names that GDAL
gave them: AWS_NO_SIGN_REQUEST=YES for public buckets, AWS_REQUEST_PAYER=requester.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from cifar_ray.errors import InputError
from cifar_ray.storage.s3_faults import S3_ERRORS, FaultKind, S3Fault, fault_of, is_transient

PATIENCE_S = 20.0
"""How long a request is repeated while its fault may pass."""
LONGEST_DELAY_S = 5.0
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
ATTEMPTS = 3
"""Of boto3 itself, which slows down when it is throttled; they count as one of ours."""
POOL_SIZE = 64
_YES = frozenset({"yes", "true", "on", "1"})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Connection:
    session: Any
    """botocore's, which knows all settings."""
    client: Any


# A client takes tens of milliseconds to make, and the ranges of one listing may be a thousand.
_CONNECTIONS: dict[tuple[tuple[str, str], ...], _Connection] = {}
_LOCK = threading.Lock()


class Bucket:
    """A bucket's name, and the client for it of whichever process it gets to."""

    def __init__(self, name: str, patience_s: float = PATIENCE_S) -> None:
        """Nothing is looked up before the first request."""
        self.name = name
        self.patience_s = patience_s
        self._connection: _Connection | None = None

    def __reduce__(self) -> tuple[type["Bucket"], tuple[str, float]]:
        """Travel without clients and credentials."""
        return Bucket, (self.name, self.patience_s)

    @property
    def client(self) -> Any:
        """The client of boto3, which any number of threads may use."""
        return self._connect().client

    def renew(self) -> None:
        """Look for credentials anew: the user may have logged in again since."""
        with _LOCK:
            for settings, connection in list(_CONNECTIONS.items()):
                if connection is self._connection:
                    del _CONNECTIONS[settings]
            self._connection = None

    def credentials(self) -> Any:
        """Return boto3's credentials, which refresh themselves; None if requests are not signed."""
        return None if anonymous() else self._connect().session.get_credentials()

    @property
    def certificates(self) -> str | None:
        """The file or folder of CA certificates that boto3 is told to trust; None: its own."""
        named: str | None = self._connect().session.get_config_variable("ca_bundle")
        return named

    def _connect(self) -> _Connection:
        with _LOCK:
            if self._connection is None:
                settings = tuple(
                    sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
                )
                if settings not in _CONNECTIONS:
                    _CONNECTIONS[settings] = _make_connection()
                self._connection = _CONNECTIONS[settings]
            return self._connection

    @property
    def endpoint(self) -> str:
        """Host and port, for messages: a url may hold a password."""
        parts = urlsplit(self.client.meta.endpoint_url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    def call(self, operation: str, **parameters: Any) -> Any:
        """Make a request; `S3Fault` if it fails for good, or still after the patience."""
        return self.patiently(
            lambda: getattr(self.client, operation)(Bucket=self.name, **parameters)
        )

    def patiently(self, action: Callable[[], T]) -> T:
        """Do something that may raise boto3's errors, again while they may pass; `S3Fault`."""
        attempts = Retrying(
            retry=retry_if_exception(is_transient),
            stop=stop_after_delay(self.patience_s),
            wait=wait_random_exponential(multiplier=0.1, max=LONGEST_DELAY_S),
            reraise=True,
        )
        try:
            return attempts(action)
        except S3_ERRORS as error:
            fault = fault_of(error)
            if fault.kind is FaultKind.CREDENTIALS:
                self.renew()
            repeated = attempts.statistics.get("attempt_number", 1) > 1
            # The store's own words stay behind: they name keys of access and machines.
            raise S3Fault(fault.kind, fault.code, fault.retried or repeated) from None


def anonymous() -> bool:
    """Tell whether requests go out unsigned."""
    return os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in _YES


def requester_pays() -> bool:
    """Tell whether this user pays for reading another's bucket."""
    return os.environ.get("AWS_REQUEST_PAYER", "").lower() in {"requester", *_YES}


def _make_connection() -> _Connection:
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=POOL_SIZE,
        retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
        # Stores of other makers, and older ones, refuse what boto3 adds by default since 2025.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        signature_version=UNSIGNED if anonymous() else None,
    )
    try:
        session = botocore.session.get_session()
        client = boto3.session.Session(botocore_session=session).client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise InputError(
            f"The settings for S3 cannot be used ({type(error).__name__}). Check AWS_PROFILE, "
            "AWS_ENDPOINT_URL, AWS_REGION and the files in ~/.aws."
        ) from None
    if requester_pays():
        client.meta.events.register("before-call.s3", _pay)
    return _Connection(session, client)


def _pay(params: dict[str, Any], **_: Any) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"
