"""The Ray engine on a real Ray: the local engine's bytes, whatever happens to whom."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.errors import InputError, Unfinished
from cifar_ray.models.backends import resolve_execution
from cifar_ray.models.bundle import Bundle
from cifar_ray.on_ray.prediction import (
    LISTING_CPUS,
    ActorSettings,
    RayEngine,
    actor_settings,
)
from cifar_ray.on_ray.session import Session
from cifar_ray.prediction.engine import MAX_DEATHS
from cifar_ray.prediction.pipeline import RunProgress, label
from cifar_ray.runs import LabellingRun
from tests.cluster.conftest import (
    BROKEN,
    IMAGES_PER_SHARD,
    NUM_IMAGES,
    REPOSITORY,
    environment,
    parts,
    plan_of,
    processes_of,
)

NUM_SHARDS = -(-(NUM_IMAGES + len(BROKEN)) // IMAGES_PER_SHARD)

pytestmark = [
    pytest.mark.usefixtures("session"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore:`ray_remote_args` is deprecated"),
]


def nothing(progress: RunProgress) -> None:
    """Show nothing."""


def test_two_workers_write_the_bytes_of_the_local_engine_and_count_right(
    images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    seen: list[RunProgress] = []
    plan = plan_of(images, tmp_path / "out")
    receipt = label(plan, RayEngine(2, 10.0), 1.0, seen.append)
    assert parts(tmp_path / "out") == undisturbed
    assert (receipt.ok, receipt.num_failed) == (NUM_IMAGES, len(BROKEN))
    last = seen[-1]
    assert last.listing_ended
    assert (last.shards_listed, last.shards_done) == (NUM_SHARDS, NUM_SHARDS)
    assert (last.rows, last.failed) == (receipt.listed, receipt.num_failed)
    assert last.image_bytes == receipt.image_bytes


def test_a_store_that_goes_away_for_a_while_costs_one_worker_nothing_but_time(
    images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    away = images.with_name("away")
    plan = plan_of(images, tmp_path / "out")
    pauses: list[str] = []

    def unplug_and_plug_in(progress: RunProgress) -> None:
        if progress.listing_ended and not pauses and images.exists():
            images.rename(away)
        if progress.pause is not None:
            pauses.append(progress.pause.reason)
            if away.exists():
                away.rename(images)

    try:
        receipt = label(plan, RayEngine(1, 600.0), 1.0, unplug_and_plug_in)
    finally:
        if away.exists():
            away.rename(images)
    assert "is gone or empty" in pauses[0]
    assert receipt.ok == NUM_IMAGES
    assert parts(tmp_path / "out") == undisturbed


def test_a_killed_worker_is_replaced_and_its_shard_done_again(
    images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    killed: list[psutil.Process] = []

    def kill(progress: RunProgress) -> None:
        if progress.shards_done and not killed:
            killed.append(processes_of("ShardWorker")[0])
            killed[0].kill()

    plan = plan_of(images, tmp_path / "out")
    label(plan, RayEngine(2, 10.0), 1.0, kill)
    assert killed
    assert parts(tmp_path / "out") == undisturbed


def test_an_error_of_ours_in_a_worker_is_the_same_error_in_the_driver(
    images: Path, tmp_path: Path
) -> None:
    plan = plan_of(images, tmp_path / "out")
    weights = plan.store.root / LabellingRun.BUNDLE / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="was changed since it was made"):
        label(plan, RayEngine(1, 10.0), 1.0, nothing)


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_ends_the_run_and_keeps_what_is_done(
    images: Path, tmp_path: Path
) -> None:
    plan = plan_of(images, tmp_path / "out")
    ended = threading.Event()
    killed: set[int] = set()

    def kill_all_that_work() -> None:
        while not ended.wait(0.02):
            for process in processes_of("ShardWorker)).submit"):
                process.kill()
                killed.add(process.pid)

    def start(progress: RunProgress) -> None:
        if progress.shards_done == 2:
            threading.Thread(target=kill_all_that_work, daemon=True).start()

    with pytest.raises(Unfinished, match="the same command goes on"):
        label(plan, RayEngine(1, 10.0), 1.0, start)
    ended.set()
    assert len(killed) >= MAX_DEATHS
    assert len(parts(tmp_path / "out")) >= 2


@pytest.mark.parametrize(
    ("cpus", "asked", "threads", "number", "num_cpus"),
    [
        (2.0, None, 1, 2, 0.999),
        (2.0, 1, 1, 1, 0.999),
        (2.0, 8, 1, 8, 0.249),
        (1.0, None, 1, 1, 0.999),
        (64.0, None, 2, 32, 1.999),
        (64.0, 16, 2, 16, 1.999),
    ],
)
def test_workers_share_the_cores_and_leave_room_for_the_listing(
    cpus: float, asked: int | None, threads: int, number: int, num_cpus: float
) -> None:
    execution = resolve_execution(
        ExecutionRequest(threads=threads, device="cpu"), Bundle.default().spec
    )
    settings = actor_settings(Session("", cpus, 0.0, None), asked, execution)
    assert settings == ActorSettings(number, num_cpus, None)


def test_workers_grow_with_a_cluster_of_others_unless_their_number_is_given() -> None:
    execution = resolve_execution(ExecutionRequest(device="cpu"), Bundle.default().spec)
    theirs, own = Session("", 8.0, 0.0, None, grows=True), Session("", 8.0, 0.0, None)
    assert actor_settings(theirs, None, execution).grows
    assert not actor_settings(theirs, 4, execution).grows
    assert not actor_settings(own, None, execution).grows


@pytest.mark.parametrize("cores", [1, 2, 16, 64])
def test_every_node_of_a_full_cluster_has_room_for_a_listing_and_for_no_further_worker(
    cores: int,
) -> None:
    execution = resolve_execution(ExecutionRequest(device="cpu"), Bundle.default().spec)
    settings = actor_settings(Session("", 3.0 * cores, 0.0, None, grows=True), None, execution)
    assert settings.number == 3 * cores
    left = cores - cores * settings.num_cpus
    assert left + 1e-9 >= LISTING_CPUS
    assert left < settings.num_cpus


@pytest.mark.parametrize(
    ("cpus", "gpus", "device", "num_gpus"),
    [
        (1.0, 0.0, "cpu", None),
        (0.0, 0.0, "cpu", None),
        (8.0, 1.0, "cuda", 1.0),
        (8.0, 0.0, "cuda", 1.0),
    ],
)
def test_workers_that_a_cluster_has_no_room_for_wait_for_nodes_and_take_nothing_from_the_others(
    cpus: float, gpus: float, device: str, num_gpus: float | None
) -> None:
    execution = resolve_execution(ExecutionRequest(device="cpu"), Bundle.default().spec)
    execution = execution.model_copy(update={"device": device})
    settings = actor_settings(Session("", cpus, gpus, None, grows=True), 30, execution)
    assert settings == ActorSettings(30, 0.999, num_gpus)


def test_a_killed_driver_leaves_a_run_that_goes_on(
    images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = started(images, out)
    workers = processes_of("ShardWorker", process.pid)
    token = Path(workers[0].environ()["RAY_AUTH_TOKEN_PATH"])
    process.kill()
    process.communicate()
    # Ray's agents stay for a minute; they do nothing.
    assert psutil.wait_procs(workers, timeout=120)[1] == []
    shutil.rmtree(token.parent, ignore_errors=True)
    assert 3 <= num_parts(out) < NUM_SHARDS
    label(plan_of(images, out), RayEngine(2, 10.0), 1.0, nothing)
    assert parts(out) == undisturbed


@pytest.mark.slow  # two starts of Ray
def test_ctrl_c_on_a_running_command_loses_nothing_and_the_same_command_goes_on(
    images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = started(images, out)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    told = process.communicate()[1]
    assert process.returncode == 130, told
    assert "the same command goes on from there" in told
    assert 3 <= num_parts(out) < NUM_SHARDS
    again = subprocess.run(
        command(images, out), cwd=REPOSITORY, env=environment(), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert parts(out) == undisturbed


def command(images: Path, out: Path) -> list[str]:
    """Return the command line, which starts a Ray of its own."""
    asked = [sys.executable, "-m", "cifar_ray", "predict", str(images), "--out", str(out)]
    asked += ["--engine", "ray", "--workers", "1", "--max-failure-rate", "1"]
    return [*asked, "--images-per-shard", str(IMAGES_PER_SHARD)]


def started(images: Path, out: Path) -> "subprocess.Popen[str]":
    """Return the running command as soon as it has written three parts."""
    process = subprocess.Popen(
        command(images, out),
        cwd=REPOSITORY,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and num_parts(out) < 3:
        psutil.wait_procs([psutil.Process(process.pid)], timeout=0.02)
    assert process.poll() is None, process.communicate()[1]
    return process


def num_parts(out: Path) -> int:
    return len(list((out / "predictions").glob("part-*.parquet")))
