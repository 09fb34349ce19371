"""From SOURCE as the user writes it to the store of images that it is."""

from cifar_ray.config.labelling import LabellingConfig, SourceReference
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.sources.base import Source
from cifar_ray.prediction.sources.containers import ContainerSource
from cifar_ray.prediction.sources.file_forms import FORMATS
from cifar_ray.prediction.sources.folder import FolderSource
from cifar_ray.prediction.sources.inventory import InventorySource
from cifar_ray.prediction.sources.local_forms import find_local
from cifar_ray.prediction.sources.manifest_file import ManifestSource
from cifar_ray.prediction.sources.sampling import PartOfSource
from cifar_ray.storage import S3_SCHEME

FILE_SCHEME = "file://"
ALL = LabellingConfig()


def find_source(
    text: str, root: str | None = None, config: LabellingConfig = ALL
) -> SourceReference:
    """Return what SOURCE is; `InputError` if it is not there or nothing that can be labelled.

    `root` is the folder below which the uris of a manifest lie, by default its own folder or
    bucket; `config` says which columns the rows shall carry, and what is left out.
    """
    if text.startswith(S3_SCHEME):
        from cifar_ray.prediction.sources.s3_forms import find_in_bucket

        return find_in_bucket(text, root, config)
    if "://" in text and not text.startswith(FILE_SCHEME):
        scheme = text.split("://")[0]
        raise InputError(
            f"SOURCE {printable(text)}: {scheme}:// is not read. Give a folder on this machine, "
            "or s3://BUCKET/PREFIX with AWS_ENDPOINT_URL for a store of any maker."
        )
    return find_local(text.removeprefix(FILE_SCHEME), root, config)


def split_source(reference: SourceReference, config: LabellingConfig) -> SourceReference:
    """Return the reference with the ranges that a new run lists side by side.

    A part of a store is one range. Raises `StoreUnavailable`.
    """
    if reference.kind != "s3" or config.partial:
        return reference
    from cifar_ray.prediction.sources.s3_ranges import split_s3_source

    return split_s3_source(reference)


def open_source(reference: SourceReference, config: LabellingConfig) -> Source:
    """Return the store, or the part of it that `--limit` or `--sample` asks for."""
    source = _open(reference, config)
    if config.partial:
        return PartOfSource(source, config.limit, config.sample, config.sample_seed)
    return source


def _open(reference: SourceReference, config: LabellingConfig) -> Source:
    if reference.kind == "folder":
        return FolderSource(reference, config)
    if reference.kind == "inventory":
        return InventorySource(reference, config)
    if reference.kind == "s3":
        # boto3 takes a third of a second to load.
        from cifar_ray.prediction.sources.s3 import S3Source

        return S3Source(reference, config)
    if reference.kind == "manifest":
        if reference.in_bucket:
            from cifar_ray.prediction.sources.s3_manifest import S3ManifestSource

            return S3ManifestSource(reference, config)
        return ManifestSource(reference, config)
    return ContainerSource(reference, config, FORMATS[reference.kind])
