"""`s3://bucket/prefix`, read and checked without touching the network."""

import re
from dataclasses import dataclass

from cifar_ray.errors import InputError, printable

S3_SCHEME = "s3://"
# What S3 allows, and the capitals and underscores that other makers' stores and old buckets have.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class S3Address:
    """A bucket, and what all keys of a place in it begin with: nothing, or what ends in `/`."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, uri: str) -> "S3Address":
        """Read a uri as the user writes it; a missing last `/` is added, as it names a folder."""
        bucket, _, prefix = uri.removeprefix(S3_SCHEME).partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise InputError(
                f"{printable(uri)} names no bucket. Write s3://BUCKET or s3://BUCKET/PREFIX."
            )
        return cls(bucket, prefix if not prefix or prefix.endswith("/") else f"{prefix}/")

    @property
    def uri(self) -> str:
        """The place in one spelling, whatever the user's was."""
        return f"{S3_SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def contains(self, other: "S3Address") -> bool:
        """Tell whether `other` is this place or lies below it."""
        return self.bucket == other.bucket and other.prefix.startswith(self.prefix)
