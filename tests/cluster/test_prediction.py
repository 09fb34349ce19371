"""The Ray engine on a real Ray: the local engine's bytes, whatever happens to whom."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cifar_ray.errors import InputError
from cifar_ray.on_ray.prediction import RayEngine
from cifar_ray.prediction.pipeline import RunProgress, label
from cifar_ray.runs import LabellingRun
from tests.cluster.conftest import BROKEN, IMAGES_PER_SHARD, NUM_IMAGES, parts, plan_of

REPOSITORY = Path(__file__).resolve().parent.parent.parent
NUM_SHARDS = -(-(NUM_IMAGES + len(BROKEN)) // IMAGES_PER_SHARD)

pytestmark = [
    pytest.mark.usefixtures("session"),
    pytest.mark.filterwarnings("ignore:`ray_remote_args` is deprecated"),
]


def nothing(progress: RunProgress) -> None:
    """Show nothing."""


def workers() -> list[psutil.Process]:
    """Return the processes of the engine's actors."""
    children = psutil.Process().children(recursive=True)
    return [process for process in children if "ShardWorker" in "".join(process.cmdline())]


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
            killed.append(workers()[0])
            killed[0].kill()

    plan = plan_of(images, tmp_path / "out")
    label(plan, RayEngine(2, 10.0), 1.0, kill)
    assert killed
    assert parts(tmp_path / "out") == undisturbed


def test_an_error_of_ours_in_a_worker_is_the_same_error_in_the_driver(
    images: Path, tmp_path: Path
) -> None:
    plan = plan_of(images, tmp_path / "out")
    weights = plan.store.local(LabellingRun.BUNDLE) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="was changed since it was made"):
        label(plan, RayEngine(1, 10.0), 1.0, nothing)


@pytest.fixture
def command(images: Path, tmp_path: Path) -> Iterator["Command"]:
    started = Command(images, tmp_path / "out")
    yield started
    started.clean()


class Command:
    """`cifar-ray predict` in processes of its own, with a Ray of its own each time."""

    def __init__(self, images: Path, out: Path) -> None:
        self.images, self.out = images, out
        self.folders: list[Path] = []

    def run_until(self, num_parts: int, number: signal.Signals) -> "subprocess.Popen[str]":
        """Run until there are so many parts, then send a signal as a terminal would."""
        command = [sys.executable, "-m", "cifar_ray", "predict", str(self.images)]
        command += ["--out", str(self.out), "--engine", "ray", "--workers", "1"]
        command += ["--images-per-shard", str(IMAGES_PER_SHARD), "--max-failure-rate", "1"]
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while process.poll() is None and self.num_parts() < num_parts:
            psutil.wait_procs([psutil.Process(process.pid)], timeout=0.02)
        assert process.poll() is None, process.communicate()[1]
        children = psutil.Process(process.pid).children(recursive=True)
        tokens = {child.environ().get("RAY_AUTH_TOKEN_PATH", "") for child in children}
        self.folders += [Path(token).parent for token in tokens if token]
        os.killpg(process.pid, number)
        process.stderr_text = process.communicate()[1]  # type: ignore[attr-defined]
        assert psutil.wait_procs(children, timeout=120)[1] == []
        return process

    def num_parts(self) -> int:
        return len(list((self.out / "predictions").glob("part-*.parquet")))

    def clean(self) -> None:
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


def test_a_driver_that_is_interrupted_then_killed_leaves_a_run_that_goes_on(
    command: Command, images: Path, undisturbed: dict[str, bytes]
) -> None:
    interrupted = command.run_until(2, signal.SIGINT)
    assert interrupted.returncode == 130
    assert "the same command goes on" in interrupted.stderr_text  # type: ignore[attr-defined]
    assert command.folders
    assert not any(folder.exists() for folder in command.folders)
    before = command.num_parts()
    command.run_until(before + 2, signal.SIGKILL)
    assert before + 2 <= command.num_parts() < NUM_SHARDS
    label(plan_of(images, command.out), RayEngine(2, 10.0), 1.0, nothing)
    assert parts(command.out) == undisturbed
