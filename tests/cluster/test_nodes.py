"""Nodes that come and go while a run goes on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from tests.cluster.conftest import (
    BROKEN,
    IMAGES_PER_SHARD,
    NUM_IMAGES,
    REPOSITORY,
    parts,
    processes_of,
)
from tests.cluster.nodes import Nodes
from tests.unit.on_ray.metadata_server import metadata_server

pytestmark = pytest.mark.slow


COPIES = 30
"""Of all images: so many that a run is not over before a node has joined."""


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with Nodes() as cluster:
        yield cluster


def num_parts(out: Path) -> int:
    return len(list(out.glob("predictions/part-*.parquet")))


def start(nodes: Nodes, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "cifar_ray", *arguments, "--address", nodes.head_address()],
        cwd=REPOSITORY,
        env=nodes.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait for something to happen while a process goes on."""
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        psutil.wait_procs([psutil.Process(process.pid)], timeout=0.05)


def test_a_node_that_dies_while_labelling_costs_no_row(
    nodes: Nodes, images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first, _ = nodes.add(), nodes.add()
    process = start(nodes, *labelling(images, out), "--workers", "2")
    wait_for(lambda: num_parts(out) >= 3, process)
    assert num_parts(out) < len(undisturbed)
    nodes.kill(first)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert parts(out) == undisturbed


def labelling(images: Path, out: Path) -> list[str]:
    options = ("--images-per-shard", str(IMAGES_PER_SHARD), "--max-failure-rate", "1")
    return ["predict", str(images), "--out", str(out), *options]


def test_a_node_that_joins_is_used_by_the_run_that_goes_on(
    nodes: Nodes, images: Path, tmp_path: Path
) -> None:
    for number in range(COPIES):
        shutil.copytree(images, tmp_path / "many" / str(number), copy_function=os.link)
    out = tmp_path / "out"
    nodes.add()
    process = start(nodes, *labelling(tmp_path / "many", out))
    wait_for(lambda: num_parts(out) >= 3, process)
    second = nodes.add()
    wait_for(lambda: bool(processes_of("ShardWorker", second.pid)), process)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    receipt = json.loads((out / "receipt.json").read_text())
    assert receipt["listed"] == COPIES * (NUM_IMAGES + len(BROKEN))


def test_a_job_whose_head_dies_goes_on_where_it_was_once_it_is_submitted_again(
    images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = (*labelling(images, out), "--workers", "1", "--shared-path")
    with Nodes() as lost:
        lost.add()
        done = lost.run("submit", *options, "--address", lost.url)
        assert done.returncode == 0, done.stderr
        head = psutil.Process(lost.processes[0].pid)
        while num_parts(out) < 3:
            psutil.wait_procs([head], timeout=0.05)
        # The head first, with the job that runs on it.
        lost.kill(lost.processes[0])
    assert 3 <= num_parts(out) < len(undisturbed)
    with Nodes() as nodes:
        nodes.add()
        again = nodes.run("submit", *options, "--follow", "--address", nodes.url)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Going on with the run in DEST" in again.stdout
    assert parts(out) == undisturbed


def test_a_spot_machine_that_is_warned_gets_no_more_work(
    nodes: Nodes, images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    warned = nodes.add()
    (node_id,) = (node["id"] for node in nodes.nodes() if node["head"] != "True")
    end = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    with metadata_server(end) as server:
        options = ("--node-id", node_id, "--metadata", server.url)
        done = subprocess.run(
            [sys.executable, "-m", "cifar_ray.on_ray.spot", nodes.head_address(), *options],
            cwd=REPOSITORY,
            env=nodes.environment(),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    # It is the only worker; what begins now waits for another.
    process = start(nodes, *labelling(images, out), "--workers", "1")
    other = nodes.add()
    wait_for(lambda: num_parts(out) >= 3, process)
    assert processes_of("ShardWorker", other.pid)
    assert not processes_of("ShardWorker", warned.pid)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert parts(out) == undisturbed
