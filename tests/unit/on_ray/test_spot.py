"""A spot machine hears of its end."""

from datetime import UTC, datetime
from importlib.util import find_spec

import pytest

if find_spec("ray") is None:
    pytest.skip("Ray has no package for this platform", allow_module_level=True)

from cifar_ray.config.cluster import GCS_PORT
from cifar_ray.on_ray import spot
from tests.conftest import REPOSITORY
from tests.unit.on_ray.metadata_server import metadata_server

END = "2026-11-29T13:40:00Z"


def test_the_end_is_none_until_it_is_planned_and_then_its_time() -> None:
    with metadata_server() as server:
        assert spot.planned_end(server.url) is None
        server.end = END
        assert spot.planned_end(server.url) == datetime(2026, 11, 29, 13, 40, tzinfo=UTC)


def test_a_machine_that_nobody_tells_anything_goes_on() -> None:
    with metadata_server() as server:
        nobody = server.url
    assert spot.planned_end(nobody) is None


def test_a_node_is_drained_once_its_end_is_planned_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    drained: list[tuple[str, str, datetime]] = []
    monkeypatch.setattr(spot, "drain", lambda *asked: drained.append(asked))
    with metadata_server() as server:
        waited: list[float] = []

        def wait(seconds: float) -> None:
            assert drained == []
            waited.append(seconds)
            if len(waited) == 3:
                server.end = END

        spot.watch("head:6379", "0a", server.url, wait)
    assert waited == [spot.POLL_S] * 3
    assert drained == [("head:6379", "0a", datetime(2026, 11, 29, 13, 40, tzinfo=UTC))]


def test_cluster_yaml_has_its_workers_listen() -> None:
    text = (REPOSITORY / "cluster.yaml").read_text()
    assert f"python -m {spot.__name__} $RAY_HEAD_IP:{GCS_PORT}" in text
