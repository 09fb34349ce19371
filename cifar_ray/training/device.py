"""Where and how to compute a training."""

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def use_threads(threads: int) -> Iterator[None]:
    """Compute with so many threads, and take numbers below float32's normal range for zero.

    The moments that an optimizer keeps for a dead unit decay into that range within an epoch or
    two, where each operation on a CPU takes a hundred times as long. To be entered first in a
    thread that trains: the threads that torch starts for it take over what is set.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
