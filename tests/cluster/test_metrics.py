"""Our metrics on Ray's endpoint: the driver's counts are the rows that it committed."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from cifar_ray.on_ray import metrics
from cifar_ray.on_ray.prediction import RayEngine
from cifar_ray.on_ray.session import Session
from cifar_ray.prediction.pipeline import label
from cifar_ray.prediction.receipt import Receipt
from tests.cluster.conftest import BROKEN, NUM_IMAGES, plan_of
from tests.required import require

TIMEOUT_S = 180
Sample = Callable[[str], float]


def from_page(session: Session) -> Sample:
    """Return a look at the page that Prometheus would scrape: a metric's sum over its labels."""

    def sample(name: str) -> float:
        page = page_of(session)
        lines = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE)
        return sum(map(float, lines))

    return sample


def page_of(session: Session) -> str:
    """Return the page, once the agent that serves it has started."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return requests.get(f"http://{session.metrics_address}/metrics", timeout=60).text
        except requests.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@pytest.fixture
def prometheus(session: Session, tmp_path: Path) -> Iterator[Sample]:
    """A Prometheus that scrapes the session; the sum of a metric's newest samples."""
    program = shutil.which("prometheus")
    require("prometheus", program, "there is no prometheus")
    config = tmp_path / "prometheus.yml"
    job = {"job_name": "ray", "static_configs": [{"targets": [session.metrics_address]}]}
    # JSON is YAML.
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{door.getsockname()[1]}"
    options = (f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}")
    process = subprocess.Popen(
        [str(program), *options, f"--web.listen-address={address}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def sample(name: str) -> float:
        try:
            query = {"query": f"sum({name})"}
            answer = requests.get(f"http://{address}/api/v1/query", params=query, timeout=60)
        except requests.ConnectionError:
            return 0.0
        found = answer.json()["data"]["result"] if answer.ok else []
        return float(found[0]["value"][1]) if found else 0.0

    try:
        yield sample
    finally:
        process.terminate()
        process.wait()


def wait_for(sample: Sample, name: str, expected: float) -> None:
    """Wait until a metric has a value; Ray exports what is counted now and then."""
    deadline = time.monotonic() + TIMEOUT_S
    while (found := sample(name)) != expected:
        assert time.monotonic() < deadline, f"{name}: {found}, not {expected}"


def run(images: Path, out: Path) -> Receipt:
    return label(plan_of(images, out), RayEngine(1, 10.0), 1.0, lambda progress: None)


def test_images_counted_are_rows_committed(
    session: Session, images: Path, prometheus: Sample, tmp_path: Path
) -> None:
    page = from_page(session)
    names = {name: f"ray_{name}_total" for name in metrics.COUNTERS}
    before = {name: page(exported) for name, exported in names.items()}
    receipt = run(images, tmp_path / "out")
    assert receipt.listed == NUM_IMAGES + len(BROKEN)
    num_parts = len(list((tmp_path / "out" / "predictions").iterdir()))
    expected = {
        metrics.IMAGES: receipt.listed,
        metrics.IMAGE_BYTES: receipt.image_bytes,
        metrics.SHARDS_DONE: num_parts,
        metrics.RETRIES: 0,
    }
    for sample in (page, prometheus):
        for name, counted in expected.items():
            wait_for(sample, names[name], before[name] + counted)
        wait_for(sample, f"ray_{metrics.SHARDS_LEFT}", 0)
    assert page(f"ray_{metrics.STAGE_SECONDS}_count") > 0
