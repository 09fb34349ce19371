"""Doctor's look at a cluster's doors."""

from importlib.util import find_spec

import pytest

if find_spec("ray") is None:
    pytest.skip("Ray has no package for this platform", allow_module_level=True)

from cifar_ray.config.cluster import RAY_VERSION
from cifar_ray.errors import InputError
from cifar_ray.on_ray import doors
from tests.unit.on_ray.job_server import job_server


def test_a_shut_door_on_loopback_is_in_order() -> None:
    with job_server(token="geheim") as server:
        seen = doors.look(server.url)
    assert seen.jobs_need_token
    assert seen.loopback
    assert seen.ray_version is None
    assert seen.warnings == ()


def test_an_open_door_and_an_old_ray_are_warned_of() -> None:
    with job_server(ray_version="2.51.1") as server:
        seen = doors.look(server.url)
    assert not seen.jobs_need_token
    told = "\n".join(seen.warnings)
    assert "without a token" in told
    assert "CVE-2025-62593" in told
    assert "CVE-2026-27482" in told
    assert "CVE-2025-1979" not in told


def test_the_version_of_the_lock_has_no_known_fault() -> None:
    assert doors.known_faults(RAY_VERSION) == []
    assert doors.known_faults(None) == doors.known_faults("nightly") == []
    assert len(doors.known_faults("2.6.0")) == len(doors.VULNERABLE)


@pytest.mark.parametrize(
    ("host", "near"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("localhost", True)]
)
def test_loopback_is_told_from_the_rest(host: str, near: bool) -> None:
    assert doors.is_loopback(host) is near


def test_nobody_there_is_an_input_error() -> None:
    with pytest.raises(InputError, match="No Ray dashboard answers"):
        doors.look("http://127.0.0.1:9")
