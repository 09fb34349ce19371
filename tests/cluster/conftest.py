"""One Ray for all of these tests, and what a run on it must be equal to."""

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
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

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
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
    return labelled_locally(images, tmp_path_factory.mktemp("local") / "out")


def labelled_locally(images: Path, out: Path) -> dict[str, bytes]:
    """Label with the local engine and return the parts."""
    plan = plan_of(images, out)
    engine = LocalEngine(plan.store.uri, plan.source.reference, 1, 10.0)
    label(plan, engine, 1.0, lambda progress: None)
    return parts(out)


def plan_of(images: Path, out: Path) -> Plan:
    config = LabellingConfig(images_per_shard=IMAGES_PER_SHARD)
    return make_plan(Request(str(images), str(out), None, None, config, ExecutionRequest()))


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "predictions").iterdir())}


def environment() -> dict[str, str]:
    """Return the environment of a process that knows nothing of this test's Ray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def processes_of(title: str, driver: int | None = None) -> list[psutil.Process]:
    """Return the processes of a driver's Ray, by default this one's, with this in their title."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.Error):  # gone or a zombie since
            if title in "".join(process.cmdline()):
                found.append(process)
    return found
