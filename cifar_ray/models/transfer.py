"""Transfer: a network takes all but its head from a network that was trained on another task."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cifar_ray.errors import InputError
from cifar_ray.models import registry
from cifar_ray.models.importing import read_state_dict
from cifar_ray.models.pretrained import in_folder, torchvision_bundle, with_todays_names
from cifar_ray.models.weights import find_faults


def head_of(name: str, network: nn.Module) -> str:
    """Return the name of the part of a registered network that is new when the rest is taken."""
    *_, (last, _) = network.named_parameters()
    return registry.get(name).head or last.rpartition(".")[0]


def pretrained_tensors(name: str, weights_file: Path | None) -> dict[str, Tensor]:
    """Return tensors for all but a network's head, and perhaps others for the head.

    They come from the file, or from the folder's file that is named as torchvision's, else from
    the cache folder, else from torchvision's server. Raises `InputError` if nobody publishes
    weights for the network, or they cannot be had.
    """
    published = registry.get(name).pretrained
    if weights_file is not None:
        return with_todays_names(read_state_dict(in_folder(weights_file, published)))
    if not published:
        raise InputError(
            f"Nobody publishes pretrained weights for {name}. Give --weights FILE, or train it"
            " with --from-scratch."
        )
    try:
        return torchvision_bundle(published).network().state_dict()
    except InputError as error:
        raise InputError(f"{error} Or train {name} with --from-scratch.") from error


def load_trunk(name: str, network: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fill all but the head, which stays as it is; `InputError` names tensors that do not fit."""
    head = head_of(name, network) + "."
    state = network.state_dict()
    expected, given = _trunk(state, head), _trunk(tensors, head)
    if faults := find_faults(expected, given):
        raise InputError(
            f"The weights in {where} do not fit {name} without its head:\n  " + "\n  ".join(faults)
        )
    with torch.no_grad():
        for key, value in given.items():
            state[key].copy_(value)


def _trunk(tensors: Mapping[str, Tensor], head: str) -> dict[str, Tensor]:
    """Leave out the head, and batch norm's counters, which are younger than many files."""
    return {
        key: value
        for key, value in tensors.items()
        if not key.startswith(head) and not key.endswith(".num_batches_tracked")
    }


def hold_trunk(network: nn.Module, head: str) -> list[nn.Parameter]:
    """Stop all but the head from training; return the parameters that were stopped.

    Follow it with `hold_statistics` whenever the network is set to train.
    """
    held = []
    for key, parameter in network.named_parameters():
        if parameter.requires_grad and not key.startswith(head + "."):
            parameter.requires_grad_(False)
            held.append(parameter)
    return held


def hold_statistics(network: nn.Module, head: str) -> None:
    """Keep the batch-norm statistics of all but the head, which train mode would move."""
    for key, module in network.named_modules():
        if isinstance(module, _BatchNorm) and not key.startswith(head + "."):
            module.eval()
