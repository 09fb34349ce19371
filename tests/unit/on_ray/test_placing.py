"""Where a cluster computes; its nodes are asked in `tests/cluster/test_nodes.py`."""

from importlib.util import find_spec

import pytest

if find_spec("ray") is None:
    pytest.skip("Ray has no package for this platform", allow_module_level=True)

from cifar_ray.on_ray.placing import takes_gpus
from cifar_ray.on_ray.session import Session


@pytest.mark.parametrize(
    ("requested", "gpus", "workers", "expected"),
    [
        ("auto", 0.0, 1, False),
        ("auto", 1.0, 1, True),
        ("auto", 1.0, 2, False),
        ("cpu", 4.0, 1, False),
        ("cuda", 0.0, 1, True),
    ],
)
def test_gpus_are_taken_if_they_are_asked_for_or_if_each_worker_can_have_one(
    requested: str, gpus: float, workers: int, expected: bool
) -> None:
    assert takes_gpus(Session("", 8.0, gpus, None), requested, workers) is expected
