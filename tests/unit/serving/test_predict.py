"""What a request gets for its images."""

import json
import random
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from cifar_ray.images.decode import DecodeOptions, decode
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.scoring import probabilities
from tests.drawing import draw
from tests.unit.serving.conftest import MakeService, client_of

URL = "/v1/predict"
PNG = {"content-type": "image/png"}


def form(*files: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"secret-name-{number}.jpg", data)) for number, data in enumerate(files)]


def png(width: int, height: int) -> bytes:
    buffer = BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_image_as_the_body_gets_label_size_and_calibrated_confidence(
    client: TestClient, picture: bytes
) -> None:
    answer = client.post(URL, content=picture, headers=PNG)
    assert answer.status_code == 200
    (result,) = answer.json()["results"]
    with Image.open(BytesIO(picture)) as image:
        assert (result["width"], result["height"]) == image.size
    assert result["status"] == "ok"
    assert result["label"] == result["top"][0]["label"]
    assert result["confidence"] == result["top"][0]["score"]
    scores = [entry["score"] for entry in result["top"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 5


def test_scores_are_those_of_the_network_over_the_temperature(
    client: TestClient, bundles: dict[str, str], picture: bytes
) -> None:
    import torch

    from cifar_ray.models.classifier import Classifier

    bundle = Bundle.load(bundles["first"])
    preprocess = bundle.spec.preprocess
    seen = preprocess.apply(decode(picture, DecodeOptions()).pixels)
    classifier = Classifier(bundle.network(), preprocess.mean, preprocess.std).eval()
    with torch.inference_mode():
        logits = classifier(torch.from_numpy(seen[np.newaxis].copy())).numpy()
    wanted = probabilities(logits, bundle.spec.temperature)[0]
    answer = client.post(URL, params={"top_k": 10}, content=picture, headers=PNG).json()
    top = answer["results"][0]["top"]
    got = [entry["score"] for entry in sorted(top, key=lambda entry: entry["label_id"])]
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_each_file_of_a_form_gets_its_own_answer_in_order(client: TestClient) -> None:
    rng = random.Random(3)
    files = []
    for size in ((40, 30), (32, 32), (50, 20), (31, 33), (64, 48)):
        buffer = BytesIO()
        draw(rng, size, "RGB").save(buffer, "PNG")
        files.append(buffer.getvalue())
    alone = [client.post(URL, content=data, headers=PNG).json()["results"][0] for data in files]
    together = client.post(URL, files=form(*files)).json()["results"]
    assert [result["width"] for result in together] == [40, 32, 50, 31, 64]
    for one, other in zip(alone, together, strict=True):
        assert one["label"] == other["label"]
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-5)


def test_broken_files_get_the_statuses_of_labelling_among_good_ones(
    client: TestClient, picture: bytes
) -> None:
    files = (b"", b"no image", picture, picture[:-60], b"\0\0\0\x0cJXL \r\n\x87\n", png(9000, 9000))
    answer = client.post(URL, files=form(*files))
    assert answer.status_code == 200
    statuses = [result["status"] for result in answer.json()["results"]]
    assert statuses == ["empty", "not_an_image", "ok", "truncated", "unsupported", "too_large"]
    assert all(
        result["error"] and result["label"] is None and result["top"] == []
        for result in answer.json()["results"]
        if result["status"] != "ok"
    )


def test_models_are_chosen_by_name_and_only_a_calibrated_one_is_confident(
    client: TestClient, picture: bytes
) -> None:
    first = client.post(URL, content=picture, headers=PNG).json()
    second = client.post(URL, params={"model": "second"}, content=picture, headers=PNG).json()
    assert first["model"] != second["model"]
    assert {entry["label"] for entry in second["results"][0]["top"]} == {"left", "right"}
    assert second["results"][0]["confidence"] is None
    unknown = client.post(URL, params={"model": "third"}, content=picture, headers=PNG)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_model")
    described = client.get("/v1/model").json()
    assert described["default"] == "first"
    assert described["models"]["first"]["id"] == first["model"]
    assert described["models"]["second"]["labels"] == ["left", "right"]


def test_requests_above_the_limits_are_refused(make_service: MakeService, picture: bytes) -> None:
    limits = {"image_bytes": len(picture), "request_bytes": 8 * len(picture), "images": 3}
    longer = picture + b"x"
    with client_of(make_service(limits=limits)) as client:
        raw = client.post(URL, content=longer, headers=PNG)
        unannounced = client.post(URL, content=iter([longer]), headers=PNG)
        whole = client.post(URL, files=form(picture * 9))
        many = client.post(URL, files=form(*[picture] * 4))
        one_of_two = client.post(URL, files=form(picture, longer)).json()["results"]
    assert [answer.status_code for answer in (raw, unannounced, whole, many)] == [413] * 4
    assert many.json()["code"] == "too_many_images"
    assert [result["status"] for result in one_of_two] == ["ok", "too_large"]


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (b"", "image/png", 400, "no_image"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "unknown_content_type"),
        (b"a", "", 415, "unknown_content_type"),
        (b"a", "multipart/form-data", 400, "bad_form"),
        (b"a", "multipart/form-data; boundary=b", 400, "bad_form"),
        (b"--b\r\n\r\n\r\n--b--", "multipart/form-data; boundary=b; charset=no", 400, "bad_form"),
        (
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\ntext\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            400,
            "no_image",
        ),
        (b'["https://example.com/a.png"]', "application/json", 403, "no_urls"),
    ],
)
def test_requests_without_images_are_told_so(
    client: TestClient, content: bytes, content_type: str, status: int, code: str
) -> None:
    answer = client.post(URL, content=content, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_answers_name_no_file_and_no_place_of_the_service(
    client: TestClient, bundles: dict[str, str], picture: bytes
) -> None:
    answers = [
        client.post(URL, files=form(picture, b"broken", b"")),
        client.post(URL, content=b"--b", headers={"content-type": "multipart/form-data"}),
        client.get("/v1/model"),
        client.get("/secret-name"),
    ]
    said = json.dumps([answer.text for answer in answers])
    for word in ("secret-name", "Traceback", ".py", str(Path(bundles["first"]).parent)):
        assert word not in said


def test_what_fails_within_is_answered_without_its_cause(
    make_service: MakeService, picture: bytes
) -> None:
    service = make_service()
    for model in service.models.values():
        # Closed threads are what a model that has crashed looks like from here.
        model.batcher._threads.shutdown()
    with client_of(service, raise_server_exceptions=False) as client:
        answer = client.post(URL, content=picture, headers=PNG)
    assert answer.status_code == 500
    assert answer.json()["code"] == "unexpected"
    assert "shutdown" not in answer.text
