"""From SOURCE as the user writes it to the store of images that it is."""

from cifar_ray.config.labelling import LabellingConfig, SourceReference
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.sources.base import Source
from cifar_ray.prediction.sources.local_forms import find_local, open_local
from cifar_ray.prediction.sources.sampling import PartOfSource

FILE_SCHEME = "file://"


def find_source(
    text: str, root: str | None = None, columns: tuple[str, ...] = ()
) -> SourceReference:
    """Return what SOURCE is; `InputError` if it is not there or nothing that can be labelled.

    `root` is the folder below which the uris of a manifest lie, by default its own; `columns` are
    those that the rows shall carry.
    """
    if "://" in text and not text.startswith(FILE_SCHEME):
        scheme = text.split("://")[0]
        raise InputError(
            f"SOURCE {printable(text)}: {scheme}:// is not read by this version. "
            "Give a folder on this machine."
        )
    return find_local(text.removeprefix(FILE_SCHEME), root, columns)


def open_source(reference: SourceReference, config: LabellingConfig) -> Source:
    """Return the store, or the part of it that `--limit` or `--sample` asks for."""
    source = open_local(reference, config)
    if config.partial:
        return PartOfSource(source, config.limit, config.sample, config.sample_seed)
    return source
