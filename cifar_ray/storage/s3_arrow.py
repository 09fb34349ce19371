"""A bucket as a file system of pyarrow's, which reads side by side and only what is asked for.

boto3 says where the bucket is and who asks, as it does everywhere.
"""

from urllib.parse import urlsplit

from pyarrow.fs import S3FileSystem

from cifar_ray.errors import InputError
from cifar_ray.storage.s3_bucket import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Bucket, anonymous
from cifar_ray.storage.s3_fast import endpoint_of, region_of


def arrow_file_system(bucket: Bucket) -> S3FileSystem:
    """Return a file system that has the credentials of this moment."""
    endpoint, path_style = endpoint_of(bucket)
    of_amazon = "amazonaws." in bucket.endpoint
    settings: dict[str, object] = {"anonymous": True}
    if not anonymous():
        credentials = bucket.credentials()
        if credentials is None:
            raise InputError(
                f"s3://{bucket.name}: no credentials found. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID "
                "and the rest; AWS_NO_SIGN_REQUEST=YES reads a public bucket without any."
            )
        frozen = credentials.get_frozen_credentials()
        settings = {
            "access_key": frozen.access_key,
            "secret_key": frozen.secret_key,
            "session_token": frozen.token,
        }
    return S3FileSystem(
        **settings,
        region=region_of(bucket),
        scheme=urlsplit(endpoint).scheme,
        endpoint_override=None if of_amazon else bucket.endpoint,
        force_virtual_addressing=not path_style,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=READ_TIMEOUT_S,
    )
