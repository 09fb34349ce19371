"""Torchvision's published weights as bundles, kept in the user's cache folder."""

import hashlib
import re
from pathlib import Path
from typing import Any

from cifar_ray.errors import InputError
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models import registry
from cifar_ray.models.backends.machine import installed_version
from cifar_ray.models.bundle import Bundle, save_bundle
from cifar_ray.models.bundle_spec import BundleSpec, TrainedOn
from cifar_ray.models.cache import cache_folder
from cifar_ray.models.torchvision_table import PREFIX
from cifar_ray.storage.folder_faults import folder_faults

# Some weights were published before torchvision renamed layers, and it renames them when it loads.
_RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def torchvision_bundle(name: str, weights_file: Path | None = None) -> Bundle:
    """Return a torchvision classifier with its published transforms and class names.

    The weights are torchvision's default ones, downloaded by it, or those of a file (in a folder,
    of the file that is named as torchvision's) with the same classes. Either becomes a bundle in
    the cache folder, and is opened from there the next time without loading torch. Raises
    `InputError` for unknown names and failing downloads.
    """
    network = f"{PREFIX}{name}"
    registry.get(network)
    if weights_file is not None:
        weights_file = in_folder(weights_file, name)
    version = installed_version("torchvision") or "absent"
    origin = f"default-{version}" if weights_file is None else _file_digest(weights_file)
    folder = cache_folder() / "models" / f"torchvision-{name}-{origin}"
    with folder_faults(folder):
        if folder.exists():
            return Bundle.load(folder)
    return _make(name, network, weights_file, folder)


def in_folder(weights: Path, name: str | None) -> Path:
    """Return the file itself, or a folder's file for the network that torchvision calls `name`."""
    if not weights.is_dir():
        return weights
    found = sorted(path for path in weights.iterdir() if path.stem.split("-")[0] == name)
    if not found:
        raise InputError(f"{weights} has no file {name}.pth or {name}.safetensors.")
    return found[0]


def _make(name: str, network: str, weights_file: Path | None, folder: Path) -> Bundle:
    from torchvision.models import get_model_weights  # seconds, and only the first time

    from cifar_ray.models.weights import fill_network

    published = get_model_weights(name).DEFAULT
    tensors = _read(weights_file) if weights_file is not None else _download(name, published)
    labels = tuple(published.meta["categories"])
    where = str(weights_file or published.url)
    filled = fill_network(network, len(labels), with_todays_names(tensors), where)
    trained_on = TrainedOn(
        dataset="ImageNet-1K",
        description=f"torchvision's {published}" if weights_file is None else f"{where!r}",
    )
    spec = BundleSpec(
        network=network,
        labels=labels,
        preprocess=_preprocess(published.transforms()),
        trained_on=trained_on,
    )
    return save_bundle(folder, filled, spec)


def _read(weights_file: Path) -> dict[str, Any]:
    from cifar_ray.models.importing import read_state_dict

    return read_state_dict(weights_file)


def _download(name: str, published: Any) -> dict[str, Any]:
    try:
        tensors: dict[str, Any] = published.get_state_dict(
            progress=True, check_hash=True, weights_only=True, map_location="cpu"
        )
    except (OSError, RuntimeError) as error:  # no network; a body that is not what it should be
        raise InputError(
            f"The weights of torchvision:{name} could not be downloaded ({error}). Fetch"
            f" {published.url} elsewhere and give it with --weights FILE."
        ) from error
    return tensors


def with_todays_names(tensors: dict[str, Any]) -> dict[str, Any]:
    """Rename tensors as torchvision does when it loads, and leave auxiliary heads out."""
    renamed = {}
    for key, value in tensors.items():
        if key.startswith(_AUXILIARY):
            continue
        for pattern, replacement in _RENAMED:
            key = pattern.sub(replacement, key)
        renamed[key] = value
    return renamed


def _preprocess(transforms: Any) -> Preprocess:
    """Translate torchvision's `ImageClassification` preset."""
    return Preprocess(
        resize=transforms.resize_size[0],
        crop=transforms.crop_size[0],
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _file_digest(weights_file: Path) -> str:
    try:
        with weights_file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InputError(f"Cannot read the weights file {weights_file}: {error}.") from error
