"""A user's own weights become a bundle: safetensors, or a state_dict that torch saved."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cifar_ray.errors import InputError
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models import registry
from cifar_ray.models.bundle import Bundle, save_bundle
from cifar_ray.models.bundle_spec import BundleSpec, TrainedOn
from cifar_ray.models.weights import fill_network
from cifar_ray.storage.folder_faults import folder_faults

_NESTED = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_READING_FAULTS = (
    OSError,
    SafetensorError,
    pickle.UnpicklingError,  # bytes that are no pickle, or hold more than tensors
    RuntimeError,  # a broken archive
    EOFError,
    ValueError,
    LookupError,
)


def import_weights(
    weights_file: Path, network: str, labels: list[str], preprocess: Preprocess, out: Path
) -> Bundle:
    """Make a bundle of a weights file, with labels in the order of the network's outputs.

    Raises `InputError` that names all tensors which do not fit, or `out` if it exists.
    """
    registry.get(network)
    with folder_faults(out):
        if out.exists():
            raise InputError(f"{out} exists already; choose another --out.")
    tensors = read_state_dict(weights_file)
    filled = fill_network(network, len(labels), tensors, str(weights_file))
    spec = BundleSpec(
        network=network,
        labels=tuple(labels),
        preprocess=preprocess,
        trained_on=TrainedOn(dataset="unknown", description=f"imported from {weights_file.name!r}"),
    )
    return save_bundle(out, filled, spec)


def read_state_dict(weights_file: Path) -> dict[str, Tensor]:
    """Read named tensors without unpickling anything else.

    A state_dict below `state_dict`, `model_state_dict` or `model` is found, and prefixes that
    DataParallel (`module.`) and `torch.compile` (`_orig_mod.`) add are taken off.
    """
    try:
        if weights_file.suffix == ".safetensors":
            content: Any = load_file(weights_file)
        else:
            content = torch.load(weights_file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"There is no weights file {weights_file}.") from error
    except _READING_FAULTS as error:
        raise InputError(
            f"{weights_file} is neither safetensors nor a state_dict of tensors alone. Save"
            " `model.state_dict()` with torch.save, or with safetensors.torch.save_file."
        ) from error
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{weights_file} holds no state_dict: names with tensors.")
    strange = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        shown = ", ".join(map(str, strange[:5]))
        raise InputError(f"{weights_file} holds more than tensors: {len(strange)} such as {shown}.")
    return _without_prefixes({str(key): value for key, value in content.items()})


def default_preprocess(network: str, input_size: int | None = None) -> Preprocess:
    """Return what networks of this input size are mostly trained with.

    From 128 pixels up ImageNet's resize, crop and statistics; below CIFAR-10's statistics.
    """
    size = input_size or registry.get(network).input_size
    if size >= 128:
        return Preprocess(
            resize=size * 256 // 224,
            crop=size,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
    return Preprocess(
        resize=size, crop=size, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
    )


def change_preprocess(
    preprocess: Preprocess, changes: Mapping[str, object], squash: bool
) -> Preprocess:
    """Return it with the changes that are not None; `InputError` if it makes no sense then."""
    fields = preprocess.model_dump()
    if squash:
        fields.update(squash=preprocess.input_size, resize=None, crop=None)
    fields.update({name: value for name, value in changes.items() if value is not None})
    try:
        return Preprocess.model_validate(fields)
    except ValidationError as error:
        faults = "; ".join(fault["msg"] for fault in error.errors())
        raise InputError(f"The preprocessing does not serve: {faults}.") from error


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES * 2:  # one may stand inside the other
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors
