"""Counts of several replicas on one page."""

import pickle

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from cifar_ray.serving.metrics import ServiceMetrics, render


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counts_and_buckets_of_replicas_are_summed_though_they_saw_different_things() -> None:
    one, other = ServiceMetrics(), ServiceMetrics()
    one.images.labels("box", "ok").inc(3)
    other.images.labels("box", "ok").inc(4)
    other.images.labels("box", "empty").inc()
    one.seconds.labels("/v1/predict").observe(0.02)
    other.seconds.labels("/v1/predict").observe(0.2)
    snapshots = [pickle.loads(pickle.dumps(replica.snapshot())) for replica in (one, other)]
    found = samples(render(snapshots).decode())
    assert found["cifar_ray_images_total", "box,ok"] == 7
    assert found["cifar_ray_images_total", "box,empty"] == 1
    assert found["cifar_ray_request_seconds_count", "/v1/predict"] == 2
    assert found["cifar_ray_request_seconds_bucket", "0.025,/v1/predict"] == 1
    assert found["cifar_ray_request_seconds_bucket", "0.25,/v1/predict"] == 2


def test_the_page_counts_images_by_status_and_no_path_that_a_client_makes_up(
    client: TestClient, picture: bytes
) -> None:
    for content in (picture, b"no image"):
        client.post("/v1/predict", content=content, headers={"content-type": "image/png"})
    client.get("/made/up")
    found = samples(client.get("/metrics").text)
    assert found["cifar_ray_images_total", "first,ok"] == 1
    assert found["cifar_ray_images_total", "first,not_an_image"] == 1
    assert found["cifar_ray_requests_total", "200,/v1/predict"] == 2
    assert found["cifar_ray_requests_total", "404,other"] == 1
    assert found["cifar_ray_batch_images_count", "first"] == 1
