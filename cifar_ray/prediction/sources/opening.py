"""From SOURCE as the user writes it to the store of images that it is."""

from pathlib import Path

from cifar_ray.config.labelling import LabellingConfig, SourceReference
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.sources.base import Source
from cifar_ray.prediction.sources.folder import FolderSource
from cifar_ray.prediction.sources.sampling import PartOfSource

FILE_SCHEME = "file://"


def find_source(text: str) -> SourceReference:
    """Return what SOURCE is; `InputError` if it is not there or nothing that can be labelled."""
    if "://" in text and not text.startswith(FILE_SCHEME):
        scheme = text.split("://")[0]
        raise InputError(
            f"SOURCE {printable(text)}: {scheme}:// is not read by this version. "
            "Give a folder on this machine."
        )
    root = Path(text.removeprefix(FILE_SCHEME)).expanduser()
    if not root.exists():
        raise InputError(f"SOURCE {printable(str(root))} does not exist. Give a folder of images.")
    if not root.is_dir():
        raise InputError(
            f"SOURCE {printable(str(root))} is a file. Give the folder that holds the images."
        )
    return SourceReference(kind="folder", uri=str(root.absolute()))


def open_source(reference: SourceReference, config: LabellingConfig) -> Source:
    """Return the store, or the part of it that `--limit` or `--sample` asks for."""
    source = FolderSource(reference, config)
    if config.partial:
        return PartOfSource(source, config.limit, config.sample, config.sample_seed)
    return source
