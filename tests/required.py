"""What a machine may lack: the test is skipped with the reason, or fails where CI promised it."""

import os

import pytest


def require(name: str, present: object, reason: str) -> None:
    """Go on if `present`; else skip, or fail when `name` stands in `CIFAR_RAY_REQUIRE`."""
    if present:
        return
    if name in os.environ.get("CIFAR_RAY_REQUIRE", "").split(","):
        pytest.fail(f"{name} is in CIFAR_RAY_REQUIRE, but {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")
