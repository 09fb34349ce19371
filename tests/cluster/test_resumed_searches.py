"""Searches that something kills, and what the next start finds and does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from cifar_ray.config.search import SearchSpec
from cifar_ray.runs import SearchRun
from cifar_ray.training.search.opening import read_search
from cifar_ray.training.search.record import Records, trials_table
from tests.cluster.conftest import REPOSITORY, environment, processes_of
from tests.cluster.searches import WAIT_S, WORKER, run, spec_of
from tests.drawing import draw_classes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resumed") / "classes"
    draw_classes(folder, each=40)
    return folder


def start(spec: SearchSpec, *options: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "cifar_ray", "tune", "--resume", spec.run, *options],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_until_some_have_ended(spec: SearchSpec, process: "subprocess.Popen[bytes]") -> None:
    """Wait for a trial that has ended beside one that has not, but has a checkpoint."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        trials = Records.load(spec).trials.values()
        running = [trial for trial in trials if not trial.has_ended and trial.history]
        if running and any(trial.has_ended for trial in trials):
            return
        if process.poll() is not None:
            pytest.fail(f"it ended too early: {process.communicate()[0].decode()}")
        time.sleep(0.02)
    pytest.fail("no trial ended")


def kill_with_its_ray(process: "subprocess.Popen[bytes]", first: psutil.Process) -> None:
    """SIGKILL one process of a search, and wait until the others have noticed."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    first.send_signal(signal.SIGKILL)
    process.communicate(timeout=WAIT_S)
    _, alive = psutil.wait_procs(family, timeout=5)
    for other in alive:
        other.kill()
    psutil.wait_procs(alive)


def ended_files(spec: SearchSpec) -> dict[int, tuple[bytes, int]]:
    trials = Records.load(spec).trials.values()
    paths = {
        t.number: SearchRun(Path(spec.run)).trial(t.number).record for t in trials if t.has_ended
    }
    return {n: (path.read_bytes(), path.stat().st_mtime_ns) for n, path in paths.items()}


def check_resumed(spec: SearchSpec, before: dict[int, tuple[bytes, int]]) -> Records:
    """Resume in this test's Ray: what had ended is as it was, and the rest has ended too."""
    assert before
    assert len(before) < spec.num_trials
    old = Records.load(spec)
    rows_before = {row["trial"]: row for row in trials_table(old).to_pylist()}
    records = run(read_search(Path(spec.run)))
    after = ended_files(spec)
    assert {number: after[number] for number in before} == before
    assert sorted(after) == list(range(spec.num_trials))
    for number, trial in old.trials.items():
        kept = records.trials[number].history[: len(trial.history)]
        assert kept == trial.history, "epochs with a checkpoint are not trained again"
    records.write_parquet()
    rows = pq.read_table(records.run.trials).to_pylist()
    assert [row["trial"] for row in rows] == list(range(spec.num_trials))
    assert {number: rows[number] for number in before} == {n: rows_before[n] for n in before}
    return records


def check_whole(spec: SearchSpec, records: Records) -> None:
    assert all(len(t.history) == spec.config.epochs for t in records.trials.values())


def test_a_killed_search_goes_on_and_no_ended_trial_runs_again(
    data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spec = spec_of(data, tmp_path / "run", num_trials=6)
    process = start(spec)
    wait_until_some_have_ended(spec, process)
    kill_with_its_ray(process, psutil.Process(process.pid))
    before = ended_files(spec)
    request.getfixturevalue("session")
    check_whole(spec, check_resumed(spec, before))


@pytest.mark.slow
def test_a_killed_search_trains_no_more_epochs_than_it_may(
    data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spec = spec_of(data, tmp_path / "run", num_trials=6, epoch_budget=13)
    process = start(spec)
    wait_until_some_have_ended(spec, process)
    kill_with_its_ray(process, psutil.Process(process.pid))
    request.getfixturevalue("session")
    records = check_resumed(spec, ended_files(spec))
    # What a kill took between an epoch's last step and its checkpoint was trained, too: one of
    # each worker at most.
    assert 11 <= records.epochs_trained <= 13
    begun = json.loads(records.run.epochs.read_text())
    assert sum(account["begun"] for account in begun.values()) == 13
    assert {trial.state for trial in records.trials.values()} == {"finished", "budget"}


@pytest.mark.slow
def test_a_search_whose_worker_is_killed_ends_and_nothing_is_left_for_the_next_start(
    data: Path, tmp_path: Path
) -> None:
    spec = spec_of(data, tmp_path / "run", num_trials=6)
    process = start(spec)
    wait_until_some_have_ended(spec, process)
    before = ended_files(spec)
    processes_of(WORKER, process.pid)[0].kill()
    output = process.communicate(timeout=WAIT_S)[0].decode()
    assert process.returncode == 0, output
    after = ended_files(spec)
    assert {number: after[number] for number in before} == before
    records = Records.load(spec)
    check_whole(spec, records)
    assert {trial.state for trial in records.trials.values()} == {"finished"}
    again = start(spec)
    output = again.communicate(timeout=WAIT_S)[0].decode()
    assert again.returncode == 0, output
    assert "6 of 6 trials have ended before" in output
    assert ended_files(spec) == after


@pytest.mark.slow
def test_a_search_whose_head_is_killed_goes_on(
    data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spec = spec_of(data, tmp_path / "run", num_trials=6)
    process = start(spec)
    wait_until_some_have_ended(spec, process)
    (head,) = processes_of("gcs_server", process.pid)
    kill_with_its_ray(process, head)
    assert process.returncode != 0
    request.getfixturevalue("session")
    check_whole(spec, check_resumed(spec, ended_files(spec)))


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(data: Path, tmp_path: Path) -> None:
    spec = spec_of(data, tmp_path / "run", num_trials=6)
    process = start(spec, "--refit")
    wait_until_some_have_ended(spec, process)
    os.kill(process.pid, signal.SIGINT)
    output = process.communicate(timeout=WAIT_S)[0].decode()
    assert process.returncode == 130, output
    assert f"cifar-ray tune --resume {spec.run} --refit" in output
    assert "Traceback" not in output
    assert (tmp_path / "run" / "trials.parquet").exists()
    assert not (tmp_path / "run" / "ray").exists()


@pytest.mark.slow
def test_the_benchmark_of_budgets_goes_on_after_a_kill(data: Path, tmp_path: Path) -> None:
    command = ["--only", "budget", "--data", str(data), "--folder", str(tmp_path)]
    command += ["--search-seeds", "1", "--set", "epochs=2", "--set", "validation_fraction=0.2"]
    command += ["--set", "batch_size=20", "--space", "learning-rate-4x4"]

    def benchmark() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.tune", *command],
            cwd=REPOSITORY,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    process = benchmark()
    folder = tmp_path / "budget-asha-0"
    deadline = time.monotonic() + WAIT_S
    while not (folder / "search.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    spec = read_search(folder)
    wait_until_some_have_ended(spec, process)
    kill_with_its_ray(process, psutil.Process(process.pid))
    before = ended_files(spec)
    assert before
    again = benchmark()
    output = again.communicate(timeout=WAIT_S)[0].decode()
    assert again.returncode == 0, output
    after = ended_files(spec)
    assert {number: after[number] for number in before} == before
    for name in ("asha", "random"):
        curve = json.loads((tmp_path / f"budget-{name}-0" / "curve.json").read_text())["curve"]
        epochs = [point["epochs"] for point in curve]
        assert epochs == sorted(set(epochs))
        assert 10 <= epochs[-1] <= 12
        assert f"{name}, seed 0: {epochs[-1]} epochs" in output
    assert (tmp_path / "tune.svg").exists()
