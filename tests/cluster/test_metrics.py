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

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.search import SearchSpec
from cifar_ray.config.spaces import get_space
from cifar_ray.on_ray.metrics import names
from cifar_ray.on_ray.metrics.labelling import LabellingMeter
from cifar_ray.on_ray.metrics.search import metered_trials
from cifar_ray.on_ray.metrics.training import metered
from cifar_ray.on_ray.prediction import RayEngine
from cifar_ray.on_ray.session import Session
from cifar_ray.prediction.events import Listed
from cifar_ray.prediction.pipeline import label
from cifar_ray.prediction.receipt import Receipt
from cifar_ray.training.epoch import EpochRow, Step
from cifar_ray.training.pipeline import Watcher
from cifar_ray.training.search.record import Records, State, TrialRecord
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
    exported = {name: f"ray_{name}_total" for name in names.COUNTERS}
    before = {name: page(there) for name, there in exported.items()}
    receipt = run(images, tmp_path / "out")
    assert receipt.listed == NUM_IMAGES + len(BROKEN)
    num_parts = len(list((tmp_path / "out" / "predictions").iterdir()))
    expected = {
        names.IMAGES: receipt.listed,
        names.IMAGE_BYTES: receipt.image_bytes,
        names.SHARDS_DONE: num_parts,
        names.RETRIES: 0,
    }
    for sample in (page, prometheus):
        for name, counted in expected.items():
            wait_for(sample, exported[name], before[name] + counted)
        wait_for(sample, f"ray_{names.SHARDS_LEFT}", 0)
        wait_for(sample, f"ray_{names.SHARDS_WAITING}", 0)
    assert page(f"ray_{names.STAGE_SECONDS}_count") > 0


def test_shards_wait_until_a_worker_has_them_in_hand(session: Session) -> None:
    page = from_page(session)
    meter = LabellingMeter()
    meter.observe(Listed(shards=9, images=9 * 16), in_hand=2)
    wait_for(page, f"ray_{names.SHARDS_LEFT}", 9)
    wait_for(page, f"ray_{names.SHARDS_WAITING}", 7)


def test_a_training_shows_its_loss_its_speed_and_its_epochs(session: Session) -> None:
    page = from_page(session)
    steps: list[Step] = []
    watcher = metered(Watcher(on_step=steps.append))
    step = Step(epoch=0, step=3, num_steps=9, loss=2.5, seconds=0.5, images_per_second=640)
    watcher.on_step(step)
    assert steps == [step]
    wait_for(page, f"ray_{names.TRAINING_LOSS}", 2.5)
    wait_for(page, f"ray_{names.TRAINING_SPEED}", 640)
    watcher.on_epoch(
        EpochRow(
            epoch=0,
            train_loss=1.5,
            validation_loss=1.75,
            validation_accuracy=0.625,
            learning_rate=0.1,
            seconds=4.0,
            images_per_second=600.0,
        )
    )
    wait_for(page, f"ray_{names.TRAINING_LOSS}", 1.5)
    wait_for(page, f"ray_{names.VALIDATION_ACCURACY}", 0.625)
    wait_for(page, f"ray_{names.EPOCHS_DONE}", 1)


def test_trials_are_counted_by_state_and_whoever_watches_hears_of_them_too(
    session: Session, tmp_path: Path
) -> None:
    config = get_recipe("cnn-122k")
    spec = SearchSpec(
        config=config,
        space=get_space("optimizer", config),
        search="random",
        scheduler="none",
        num_trials=6,
        seed=0,
        data="cifar10",
        run=str(tmp_path / "search"),
        code_version="0",
    )
    states: tuple[State, ...] = ("finished", "running", "running", "failed")
    trials = {n: TrialRecord(number=n, parameters={}, state=s) for n, s in enumerate(states)}
    heard: list[Records] = []
    records = Records(spec, trials)
    metered_trials(heard.append)(records)
    assert heard == [records]
    expected = {"planned": 2, "running": 2, "finished": 1, "stopped": 0, "failed": 1}
    for state, number in expected.items():
        wait_for(by_state(session, state), f"ray_{names.TRIALS}", number)


def by_state(session: Session, state: str) -> Sample:
    """Return a look at the page for the samples of one state alone; -1 before there is one."""

    def sample(name: str) -> float:
        found = re.search(rf'^{name}{{[^}}]*state="{state}"[^}}]*}} (\S+)$', page_of(session), re.M)
        return float(found[1]) if found else -1.0

    return sample
