"""The OpenAPI document is true: made-up requests get what it says, and never a fault of ours."""

import random
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from cifar_ray.serving.app import create_app
from tests.unit.serving.conftest import MakeService, client_of

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
BOUNDED = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


@pytest.mark.parametrize("url_origins", [(), ("http://localhost",)], ids=["", "urls"])
def test_made_up_requests_get_what_the_document_says(
    make_service: MakeService, url_origins: tuple[str, ...]
) -> None:
    app = create_app(make_service(url_origins=url_origins))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert "/v1/predict" in {operation.path for operation in operations}
    for operation in operations:

        @BOUNDED
        @given(case=operation.as_strategy())
        def try_(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        try_()


def test_bodies_have_examples(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert schemas["Prediction"]["examples"][0]["results"]
    content = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert content["application/json"]["example"]


@pytest.fixture(scope="module")
def fuzzed(bundles: dict[str, str]) -> Iterator[TestClient]:
    from cifar_ray.config.execution import ExecutionRequest
    from cifar_ray.config.serving import ServiceConfig
    from cifar_ray.serving.service import Service

    execution = ExecutionRequest(device="cpu", backend="torch", precision="float32")
    config = ServiceConfig(models=bundles, default_model="first", execution=execution)
    with client_of(Service(config), raise_server_exceptions=False) as client:
        yield client


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(), cuts=st.lists(st.integers(0, 10**6), max_size=3), junk=st.binary())
def test_damaged_images_and_forms_get_an_answer(
    fuzzed: TestClient, seed: int, cuts: list[int], junk: bytes
) -> None:
    data = damaged(seed, cuts, junk)
    raw = fuzzed.post("/v1/predict", content=data, headers={"content-type": "image/jpeg"})
    assert raw.status_code in (200, 400)
    head = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    form = damaged(seed, cuts, junk, head + data + b"\r\n--b--\r\n")
    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert fuzzed.post("/v1/predict", content=form, headers=kind).status_code in (200, 400, 413)


def damaged(seed: int, cuts: list[int], junk: bytes, data: bytes | None = None) -> bytes:
    """Return a drawn image, or `data`, with junk in some places."""
    from io import BytesIO

    from tests.drawing import draw

    rng = random.Random(seed)
    if data is None:
        buffer = BytesIO()
        kind = rng.choice(("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"))
        draw(rng, (rng.randrange(1, 50), rng.randrange(1, 50)), "RGB").save(buffer, kind)
        data = buffer.getvalue()
    for cut in cuts:
        at = cut % (len(data) + 1)
        data = data[:at] + junk + data[at + rng.randrange(8) :]
    return data
