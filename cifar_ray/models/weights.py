"""Tensors of a network: to and from safetensors, and what is wrong when they do not fit."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cifar_ray.errors import InputError
from cifar_ray.models import registry

_SHOWN = 10


def load_network(name: str, num_classes: int, weights_file: Path) -> nn.Module:
    """Build a network with the file's weights in float32, in eval mode.

    Raises `InputError` that names the tensors which do not fit.
    """
    try:
        tensors = load_file(weights_file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"Cannot read {weights_file}: {error}.") from error
    return fill_network(name, num_classes, tensors, str(weights_file))


def fill_network(
    name: str, num_classes: int, tensors: Mapping[str, Tensor], where: str
) -> nn.Module:
    """Build a network from tensors, as `load_network` does; `where` is told in errors."""
    network = _build_without_weights(name, num_classes)
    state = network.state_dict()
    # Batch norm's counter of batches is younger than many files, and unused after training.
    counters = {key: torch.tensor(0) for key in state if key.endswith(".num_batches_tracked")}
    tensors = {**counters, **tensors}
    faults = find_faults(state, tensors)
    if _num_outputs(network, tensors) not in (None, num_classes):
        outputs = _num_outputs(network, tensors)
        faults.insert(0, f"{num_classes} labels, but weights for {outputs} classes")
    if faults:
        raise InputError(
            f"The weights in {where} do not fit {name} with {num_classes} classes:\n  "
            + "\n  ".join(faults)
        )
    # In place, because torchvision's networks read the versions that this dict carries.
    state.update({key: _as_float32(value) for key, value in tensors.items()})
    network.load_state_dict(state, assign=True)
    return network.eval()


def save_weights(network: nn.Module, weights_file: Path, dtype: torch.dtype) -> None:
    """Write the state_dict; filters and matrices as `dtype`, vectors and counters as they are."""
    tensors = {
        key: _as_stored(value, dtype).detach().cpu().contiguous().clone()
        for key, value in network.state_dict().items()
    }
    write_tensors(tensors, weights_file)


def write_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file; raises `OSError` where it cannot."""
    # Not its `save_file`, which makes files for their owner alone and hides why it cannot write.
    path.write_bytes(save(tensors, metadata))


@torch.no_grad()
def round_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Round a network's weights to what `save_weights` keeps of them, to measure what is saved."""
    for value in network.state_dict().values():
        value.copy_(_as_stored(value, dtype))


def find_faults(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return a line for missing, for extra and for misshaped tensors, with counts and names."""
    misshaped = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in given and given[key].shape != expected[key].shape
    ]
    kinds = {
        "missing": [key for key in expected if key not in given],
        "not known to the network": [key for key in given if key not in expected],
        "of another shape": misshaped,
    }
    return [f"{len(found)} {kind}: {_listed(found)}" for kind, found in kinds.items() if found]


def _listed(found: list[str]) -> str:
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _num_outputs(network: nn.Module, tensors: Mapping[str, Tensor]) -> int | None:
    """Return how many classes the tensors are for; the last parameter belongs to the head."""
    *_, (name, _) = network.named_parameters()
    head = tensors.get(name)
    return head.shape[0] if head is not None and head.ndim else None


def _build_without_weights(name: str, num_classes: int) -> nn.Module:
    """Build on the meta device, which saves drawing random weights that are replaced at once."""
    spec = registry.get(name)
    try:
        with torch.device("meta"):
            network = spec.build(num_classes)
    except NotImplementedError:  # RegNets compute their widths with tensors
        return spec.build(num_classes)
    if {key for key, _ in network.named_buffers()} - set(network.state_dict()):
        return spec.build(num_classes)  # no file fills its other buffers
    return network


def _as_stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.ndim > 1 else tensor


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
