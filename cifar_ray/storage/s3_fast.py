"""Reading small objects through obstore, at a fifteenth of boto3's work a request.

boto3 says where a bucket is and who asks. Whatever does not go well at the first attempt is left to
boto3: nothing here decides what a fault means.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cifar_ray.errors import CifarRayError
from cifar_ray.storage.s3_bucket import (
    CONNECT_TIMEOUT_S,
    POOL_SIZE,
    READ_TIMEOUT_S,
    Bucket,
    anonymous,
    requester_pays,
)
from cifar_ray.storage.s3_faults import S3_ERRORS, S3Fault

if TYPE_CHECKING:
    from typing import Self

    from obstore.store import ClientConfig, S3Config, S3Credential

try:
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store as ObstoreS3
except ImportError:  # no wheel for this platform
    HAS_OBSTORE = False
else:
    HAS_OBSTORE = True

MAX_BYTES = 2**24
"""Larger objects are boto3's, which reads on where a body was cut short."""
CREDENTIALS_LAST = timedelta(minutes=1)
"""boto3's refresh themselves; they are asked for again after this time."""
# Keys that obstore spells as S3 does; it knows no empty path segments and no `.` and `..`.
_SAFE_KEY = re.compile(r"(?!.*(^|/)(\.{0,2})(/|$))[\w !'()*+,.:;=@&$~/-]+", re.ASCII)


class FastReader:
    """Reads objects whole; any number of threads may use one."""

    def __init__(self, bucket: Bucket, store: "ObstoreS3") -> None:
        """Use `if_possible`."""
        self.bucket = bucket
        self.store = store

    @classmethod
    def if_possible(cls, bucket: Bucket) -> "Self | None":
        """Return a reader; None where obstore is absent or cannot be told what boto3 knows."""
        if not HAS_OBSTORE:
            return None
        try:
            store = _open(bucket)
        except (CifarRayError, OSError, *S3_ERRORS):
            return None
        return cls(bucket, store)

    def read(self, key: str, etag: str, size_bytes: int) -> bytes | None:
        """Return an object if it has this ETag (without quotes); None: ask boto3."""
        if size_bytes > MAX_BYTES or not _SAFE_KEY.fullmatch(key):
            return None
        try:
            result = obstore.get(self.store, key, options={"if_match": f'"{etag}"'})
            if (result.meta["e_tag"] or "").strip('"') != etag:
                return None
            return bytes(result.bytes())
        except (BaseError, OSError, *S3_ERRORS):
            return None

    def look(self, key: str) -> tuple[str, int] | None:
        """Return an object's ETag (without quotes) and size; None: ask boto3."""
        if not _SAFE_KEY.fullmatch(key):
            return None
        try:
            found = obstore.head(self.store, key)
        except (BaseError, OSError, *S3_ERRORS):
            return None
        etag = (found["e_tag"] or "").strip('"')
        return (etag, found["size"]) if etag else None


def _open(bucket: Bucket) -> "ObstoreS3":
    endpoint, path_style = endpoint_of(bucket)
    config: S3Config = {
        "endpoint": endpoint,
        "region": region_of(bucket),
        "virtual_hosted_style_request": not path_style,
        "request_payer": requester_pays(),
        "skip_signature": anonymous(),
    }
    client_options: ClientConfig = {
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "timeout": timedelta(seconds=READ_TIMEOUT_S),
        "allow_http": endpoint.startswith("http://"),
        "pool_max_idle_per_host": str(POOL_SIZE),
    }
    if endpoint.startswith("https://") and (certificates := bucket.certificates):
        # Beside the system's, where boto3 trusts these alone.
        client_options["root_certificate"] = Path(certificates).read_bytes()
    return ObstoreS3(
        bucket.name,
        config=config,
        client_options=client_options,
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=READ_TIMEOUT_S)},
        credential_provider=None if anonymous() else _Credentials(bucket),
    )


def endpoint_of(bucket: Bucket) -> tuple[str, bool]:
    """Return where boto3 would send a request, and whether the bucket stands in its path."""
    url = bucket.client.generate_presigned_url(
        "get_object", Params={"Bucket": bucket.name, "Key": "key"}
    )
    parts = urlsplit(url)
    path = parts.path.removesuffix("/key")
    path_style = path.endswith(f"/{bucket.name}")
    return f"{parts.scheme}://{parts.netloc}{path.removesuffix(f'/{bucket.name}')}", path_style


def region_of(bucket: Bucket) -> str:
    """Return the region that a bucket lies in."""
    if "amazonaws." in bucket.endpoint:
        with suppress(S3Fault, KeyError):
            return str(bucket.call("head_bucket")["BucketRegion"])
    return str(bucket.client.meta.region_name or "us-east-1")


class _Credentials:
    """Gives obstore the credentials that boto3 has at the moment."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self()

    def __call__(self) -> "S3Credential":
        credentials = self.bucket.credentials()
        if credentials is None:
            raise OSError("no credentials")
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_LAST,
        }
