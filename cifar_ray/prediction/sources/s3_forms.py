"""What a SOURCE in a bucket is: a prefix of images or of containers, a manifest, a container."""

from collections import Counter

from cifar_ray.config.labelling import LabellingConfig, SourceKind, SourceReference
from cifar_ray.errors import InputError
from cifar_ray.prediction.sources.base import Entry
from cifar_ray.prediction.sources.blobs import SourceFile
from cifar_ray.prediction.sources.containers import WHOLE_FOLDER
from cifar_ray.prediction.sources.file_forms import FILES, FORMATS, find_file, with_options
from cifar_ray.prediction.sources.inventory import MANIFEST_NAME
from cifar_ray.prediction.sources.s3 import S3Listing
from cifar_ray.storage.s3_address import S3Address
from cifar_ray.storage.s3_bucket import Bucket
from cifar_ray.storage.s3_faults import S3Fault, explain


def find_in_bucket(text: str, root: str | None, config: LabellingConfig) -> SourceReference:
    """Return the reference; `InputError` if the place cannot be listed or holds nothing."""
    address = S3Address.parse(text)
    bucket = Bucket(address.bucket)
    # With its last `/` away, a prefix is a file's key; both are looked for at once.
    key = address.prefix.removesuffix("/")
    try:
        page = bucket.call("list_objects_v2", Prefix=key, MaxKeys=1)
        is_file = any(item["Key"] == key for item in page.get("Contents", ()))
        if is_file and not text.endswith("/") and _may_be_source(key):
            return find_file(SourceFile.at(text), root, config)
        page = bucket.call("list_objects_v2", Prefix=address.prefix, MaxKeys=1)
    except S3Fault as fault:
        raise InputError(explain(fault, address.uri, bucket.endpoint)) from None
    if not page.get("Contents"):
        raise InputError(
            f"SOURCE {address.uri}/ holds nothing. Give the prefix above the images, or the key of "
            "a manifest or container; keys are taken as S3 spells them, capitals and all."
        )
    return with_options(_prefix(address), root, config)


def _may_be_source(key: str) -> bool:
    name = key.rpartition("/")[2].lower()
    return name == MANIFEST_NAME or name.endswith(FILES)


def _prefix(address: S3Address) -> SourceReference:
    """Tell a prefix of images from one of containers: one that holds nothing else to label."""
    kinds: Counter[SourceKind] = Counter()
    images = SourceReference(kind="s3", uri=address.uri)
    for item in S3Listing(address, LabellingConfig()).entries(None):
        if isinstance(item, Entry):
            return images
        for kind, format_ in FORMATS.items():
            kinds[kind] += item.kind in format_.extensions
    found = [kind for kind, number in kinds.items() if number]
    if not found:
        return images
    if len(found) > 1:
        raise InputError(
            f"SOURCE {address.uri}/ holds containers of several kinds ({', '.join(found)}). Give a "
            "prefix of one kind, or one of them."
        )
    return SourceReference(kind=found[0], uri=address.uri, pattern=WHOLE_FOLDER)
