"""What `plan` says of requests, against those that a run sends."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.prediction.forecasting.estimate import GETS_A_PART, LISTS_A_PART, PUTS_A_PART
from cifar_ray.prediction.plan import Request, make_plan
from tests.drawing import draw_folder
from tests.store.conftest import BUCKET
from tests.store.proxy import FaultProxy
from tests.store.test_s3_labelling import run

NUM_IMAGES = 24


@pytest.mark.slow  # two runs from a bucket into a bucket
def test_a_part_costs_the_requests_that_the_plan_says(
    place: str, prefix: str, client: Any, proxy: FaultProxy, tmp_path: Path
) -> None:
    draw_folder(tmp_path, NUM_IMAGES)
    for path in tmp_path.rglob("*.*"):
        key = f"{prefix}images/{path.relative_to(tmp_path).as_posix()}"
        client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
    counts = []
    for size in (4, 8):
        proxy.requests.clear()
        out = f"{place}/labels-{size}"
        config = LabellingConfig(images_per_shard=size)
        receipt = run(
            make_plan(Request(f"{place}/images", out, None, None, config, ExecutionRequest()))
        )
        assert receipt.parts == NUM_IMAGES // size
        ours = [request for request in proxy.requests if "labels-" in request]
        counts.append(Counter("LIST" if "list-type" in r else r.split()[0] for r in ours))
    more_parts = NUM_IMAGES // 4 - NUM_IMAGES // 8
    a_part = {method: (counts[0][method] - counts[1][method]) / more_parts for method in counts[0]}
    # Reads of the contact sheet's rows vary with what is in which part.
    assert abs(a_part["GET"] - GETS_A_PART) <= 1, a_part
    assert (a_part["PUT"], a_part["LIST"]) == (PUTS_A_PART, LISTS_A_PART), a_part
