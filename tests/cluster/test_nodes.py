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

from cifar_ray.config.machine import usable_cores
from cifar_ray.runs import TrainingRun
from tests.cluster.conftest import (
    BROKEN,
    IMAGES_PER_SHARD,
    NUM_IMAGES,
    REPOSITORY,
    parts,
    processes_of,
)
from tests.cluster.nodes import Nodes
from tests.drawing import draw_classes
from tests.unit.on_ray.metadata_server import metadata_server

pytestmark = pytest.mark.slow


COPIES = 100
"""Of all images: so many that a run is not over before a node has joined."""
EPOCHS = 60


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


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["unasked", "waited-for"])
def test_a_node_that_joins_is_used_by_the_run_that_goes_on(
    options: tuple[str, ...], nodes: Nodes, images: Path, tmp_path: Path
) -> None:
    for number in range(COPIES):
        shutil.copytree(images, tmp_path / "many" / str(number), copy_function=os.link)
    out = tmp_path / "out"
    nodes.add()
    process = start(nodes, *labelling(tmp_path / "many", out), *options)
    wait_for(lambda: num_parts(out) >= 3, process)
    second = nodes.add()
    wait_for(lambda: bool(processes_of("ShardWorker", second.pid)), process)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    receipt = json.loads((out / "receipt.json").read_text())
    assert receipt["listed"] == COPIES * (NUM_IMAGES + len(BROKEN))


def test_how_to_compute_is_settled_by_a_node_that_computes_and_not_by_the_driver(
    nodes: Nodes, images: Path, tmp_path: Path
) -> None:
    # The one node with a GPU, as Ray is told; and with another torch, as its metadata have it, one
    # that knows no GPU. Workers hold the version against run.json.
    metadata = tmp_path / "site" / "torch-0.0.1+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Name: torch\nVersion: 0.0.1+cpu\n")
    nodes.add(num_gpus=1, PYTHONPATH=f"{tmp_path / 'site'}:{REPOSITORY}")
    out = tmp_path / "out"
    process = start(nodes, *labelling(images, out), "--limit", "20", "--dashboard")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert f"Dashboard {nodes.url}" in said
    execution = json.loads((out / "run.json").read_text())["execution"]
    assert execution["versions"]["torch"] == "0.0.1+cpu"
    assert execution["device"] == "cpu"
    refused = nodes.run(
        *labelling(images, tmp_path / "cuda"), "--device", "cuda", "--address", nodes.head_address()
    )
    assert refused.returncode == 2
    assert "torch finds no GPU here" in refused.stderr


def test_a_plan_for_a_cluster_is_measured_on_the_largest_of_its_nodes(
    nodes: Nodes, images: Path, tmp_path: Path
) -> None:
    command = ["plan", str(images), "--address", nodes.head_address(), "--json"]
    nobody = nodes.run(*command)
    assert nobody.returncode == 2
    assert "No node of the cluster has a core" in nobody.stderr
    cores = usable_cores() + 1
    nodes.add()
    nodes.add(num_cpus=cores)
    done = nodes.run(*command, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert f"with {cores} cores" in done.stderr
    found = json.loads(done.stdout)
    assert (found["workers"], found["measured_side_by_side"]) == (cores, cores)
    assert json.loads((tmp_path / "out" / "forecast.json").read_text()) == found
    nowhere = nodes.run("plan", str(tmp_path / "nowhere"), "--address", nodes.head_address())
    assert nowhere.returncode == 2
    assert "nowhere" in nowhere.stderr


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


def history(run: TrainingRun) -> list[dict[str, float]]:
    """Return the epochs that a training has done; its file is replaced as a whole."""
    rows: list[dict[str, float]] = []
    if run.history.exists():
        rows = json.loads(run.history.read_text())
    return rows


def without_times(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    times = ("seconds", "images_per_second")
    return [{name: row[name] for name in row if name not in times} for row in rows]


def test_a_node_that_dies_while_training_costs_no_epoch_that_was_done(
    nodes: Nodes, tmp_path: Path
) -> None:
    draw_classes(tmp_path / "classes", each=30)
    # Both workers fit on one of them, whatever number of threads they ask for.
    added = [nodes.add(num_cpus=max(2, usable_cores())) for _ in range(2)]
    # So slow that all epochs have losses to compare.
    settings = (f"epochs={EPOCHS}", "batch_size=21", "optimizer.learning_rate=1e-5")
    command = ["train", str(tmp_path / "classes"), "--recipe", "cnn-122k", "--workers", "2"]
    command += [word for setting in settings for word in ("--set", setting)]
    whole, run = (TrainingRun(tmp_path / name) for name in ("whole", "run"))
    process = start(nodes, *command, "--out", str(whole.folder))
    said, _ = process.communicate()
    assert process.returncode == 0, said

    process = start(nodes, *command, "--out", str(run.folder))
    victims: list[subprocess.Popen[bytes]] = []

    def trains() -> bool:
        victims[:] = [node for node in added if processes_of("RayTrainWorker", node.pid)]
        return bool(victims)

    wait_for(trains, process)
    wait_for(lambda: len(history(run)) >= 2, process)
    nodes.kill(victims[0])
    done = history(run)
    assert len(done) < EPOCHS
    said, _ = process.communicate()
    assert process.returncode == 0, said
    rows = history(run)
    # With their seconds, which nobody would repeat.
    assert rows[: len(done)] == done
    assert without_times(rows) == without_times(history(whole))
    ours, expected = (ended.bundle / "model.safetensors" for ended in (run, whole))
    assert ours.read_bytes() == expected.read_bytes()
