"""A service of two small models, without Ray, in this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.serving import ServiceConfig
from cifar_ray.serving.app import create_app
from cifar_ray.serving.service import Service
from tests.unit.models.bundles import make_bundle

MakeService = Callable[..., Service]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bundles")
    calibrated = make_bundle(folder / "calibrated", temperature=2.0)
    two_classes = make_bundle(folder / "two", labels=("left", "right"))
    return {"first": str(calibrated.path), "second": str(two_classes.path)}


@pytest.fixture
def make_service(bundles: dict[str, str]) -> MakeService:
    def make(**changes: Any) -> Service:
        config = {
            "models": bundles,
            "default_model": "first",
            "execution": ExecutionRequest(device="cpu", backend="torch", precision="float32"),
            "batch_sizes": (1, 4),
        }
        return Service(ServiceConfig.model_validate({**config, **changes}))

    return make


@contextmanager
def client_of(service: Service, **options: Any) -> Iterator[TestClient]:
    with TestClient(create_app(service), **options) as client:
        yield client


@pytest.fixture
def client(make_service: MakeService) -> Iterator[TestClient]:
    with client_of(make_service()) as opened:
        yield opened


@pytest.fixture
def picture(drawn_images: Path) -> bytes:
    return next(drawn_images.rglob("*.png")).read_bytes()
