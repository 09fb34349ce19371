"""The cluster that a verb works on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

HERE = (None, "local")
"""Addresses of a Ray that starts on this machine, when it is needed."""


def chosen_address(option: str | None) -> str | None:
    """Return the cluster's address: that of `--address`, else that of `RAY_ADDRESS`."""
    return option or os.environ.get("RAY_ADDRESS")


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Hold one connection to the cluster at `address`, if there is one; the block's own join it."""
    if address in HERE:
        yield
        return
    from cifar_ray.on_ray.session import ray_session

    with ray_session(address):
        yield
