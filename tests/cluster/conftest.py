"""One Ray for all of these tests, and what a run on it must be equal to."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.pipeline import label
from cifar_ray.prediction.plan import Plan, Request, make_plan
from tests.drawing import draw_folder

if TYPE_CHECKING:
    from cifar_ray.on_ray.session import Session

# Ray has no package for some platforms; what imports it cannot even be collected there.
collect_ignore_glob = [] if find_spec("ray") else ["test_*.py"]

HERE = Path(__file__).parent
TIMEOUT_S = 900
BROKEN = {"a/empty.jpg": b"", "b/text.jpg": b"this is no picture", "c/noise": bytes(range(256)) * 3}
NUM_IMAGES = 300
IMAGES_PER_SHARD = 16


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("cluster")
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def session() -> Iterator["Session"]:
    """Two cores of this machine."""
    from cifar_ray.on_ray.session import ray_session

    with ray_session("local", num_cpus=2) as opened:
        yield opened


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 drawn images, and three files that only look like some."""
    root = tmp_path_factory.mktemp("store") / "images"
    draw_folder(root, NUM_IMAGES)
    for name, data in BROKEN.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="session")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The parts that the local engine writes."""
    out = tmp_path_factory.mktemp("local") / "out"
    plan = plan_of(images, out)
    label(plan, LocalEngine(plan.store.uri, plan.source, 1, 10.0), 1.0, lambda progress: None)
    return parts(out)


def plan_of(images: Path, out: Path) -> Plan:
    config = LabellingConfig(images_per_shard=IMAGES_PER_SHARD)
    return make_plan(Request(str(images), str(out), None, None, config, ExecutionRequest()))


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "predictions").iterdir())}
