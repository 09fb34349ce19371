"""Where to train."""

import torch

from cifar_ray.errors import InputError


def choose_device(requested: str) -> str:
    """Return `cuda` or `cpu`; with `auto` a GPU if there is one."""
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise InputError(
            "--device cuda: torch sees no CUDA device here. Take --device cpu or auto."
        )
    if requested == "auto":
        return "cuda" if available else "cpu"
    return requested
