"""Hyperparameter search on Ray Tune: what trials leave behind, whatever is killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import tune as benchmark
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.search import SearchSpec
from cifar_ray.config.spaces import get_space, parse_space
from cifar_ray.config.training import override
from cifar_ray.errors import InputError
from cifar_ray.models.bundle import Bundle
from cifar_ray.on_ray.tuning.events import KILLED
from cifar_ray.on_ray.tuning.search import search
from cifar_ray.runs import SearchRun
from cifar_ray.training.checkpoint import averaged_weights
from cifar_ray.training.loop import Ranks
from cifar_ray.training.pipeline import Watcher, make_trainer
from cifar_ray.training.search.opening import open_search, read_search
from cifar_ray.training.search.record import Records
from cifar_ray.training.search.refit import refit
from cifar_ray.training.search.report import render
from cifar_ray.training.search.trial import images
from tests.cluster.conftest import REPOSITORY, environment, processes_of
from tests.drawing import draw_classes

SETTINGS = ["epochs=4", "batch_size=20", "validation_fraction=0.2"]
RATES = "learning_rate = {log_uniform = [1e-4, 1e-2]}"
WORKER = "ray::ImplicitFunc"
WAIT_S = 300


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning") / "classes"
    draw_classes(folder, each=40)
    return folder


def spec_of(data: Path, run: Path, space: str = RATES, **changes: object) -> SearchSpec:
    config = override(get_recipe("cnn-122k"), SETTINGS)
    values = {
        "config": config,
        "space": parse_space("drawn.toml", space, config),
        "search": "random",
        "scheduler": "none",
        "num_trials": 4,
        "seed": 0,
        "data": str(data),
        "run": str(run),
        "code_version": "0",
    }
    spec = SearchSpec.model_validate({**values, **changes})
    open_search(spec)
    return spec


def run(spec: SearchSpec) -> Records:
    records = Records.load(spec)
    search(records, None, lambda now: None)
    return Records.load(spec)


@pytest.mark.usefixtures("session")
def test_a_trial_that_diverges_costs_itself_only(data: Path, tmp_path: Path) -> None:
    space = "learning_rate = {choice = [1e-3, 1e30, 3e-3]}"
    records = run(spec_of(data, tmp_path / "run", space, search="grid", num_trials=3))
    states = {number: trial.state for number, trial in records.trials.items()}
    assert states == {0: "finished", 1: "failed", 2: "finished"}
    assert "finite" in (records.trials[1].error or "")
    best = records.best()
    assert best is not None
    assert best.number != 1
    assert not (tmp_path / "run" / "ray").exists()


@pytest.mark.usefixtures("session")
def test_data_that_cannot_be_read_ends_the_search_which_goes_on_once_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "classes"
    draw_classes(folder, each=20)
    (folder / "red" / "broken.png").write_bytes(b"\x89PNG")
    spec = spec_of(folder, tmp_path / "run", num_trials=3)
    with pytest.raises(InputError, match="broken"):
        run(spec)
    assert not any(trial.has_ended for trial in Records.load(spec).trials.values())
    (folder / "red" / "broken.png").unlink()
    records = run(spec)
    assert [trial.state for trial in records.trials.values()] == ["finished"] * 3


@pytest.mark.usefixtures("session")
def test_tpe_with_asha_stops_trials_and_its_best_becomes_a_bundle(
    data: Path, tmp_path: Path
) -> None:
    spec = spec_of(
        data,
        tmp_path / "run",
        "learning_rate = {log_uniform = [1e-7, 1e-2]}",
        search="tpe",
        scheduler="asha",
        num_trials=8,
    )
    records = run(spec)
    assert all(trial.has_ended for trial in records.trials.values())
    states = [trial.state for trial in records.trials.values()]
    assert "stopped" in states
    assert "finished" in states
    assert not list((tmp_path / "run").rglob("metrics.json")), "no trial looks at test images"
    best = records.best()
    assert best is not None
    metrics = refit(records, best, "cpu", 2, Watcher())
    bundle = Bundle.load(records.run.bundle)
    assert bundle.spec.metrics["accuracy"] == metrics["accuracy"] > 0.9


@pytest.mark.usefixtures("session")
def test_a_trial_whose_process_is_killed_goes_on(data: Path, tmp_path: Path) -> None:
    records = Records.load(spec_of(data, tmp_path / "run", num_trials=2))
    killed: list[int] = []

    def kill_one(now: Records) -> None:
        if not killed and any(trial.history for trial in now.trials.values()):
            victim = processes_of(WORKER)[0]
            killed.append(victim.pid)
            victim.kill()

    search(records, None, kill_one)
    assert killed
    assert [trial.state for trial in records.trials.values()] == ["finished", "finished"]
    assert [len(trial.history) for trial in records.trials.values()] == [4, 4]


@pytest.mark.usefixtures("session")
def test_a_trial_whose_process_is_always_killed_fails_alone(data: Path, tmp_path: Path) -> None:
    records = Records.load(spec_of(data, tmp_path / "run", num_trials=1))

    def kill_all(now: Records) -> None:
        if any(trial.history for trial in now.trials.values()):
            for process in processes_of(WORKER):
                process.kill()

    search(records, None, kill_all)
    assert records.trials[0].state == "failed"
    assert records.trials[0].error == KILLED
    assert records.best() is None


@pytest.mark.usefixtures("session")
def test_a_population_exploits_and_tells_its_lineage(data: Path, tmp_path: Path) -> None:
    spec = spec_of(data, tmp_path / "run", search="pbt", num_trials=4)
    records = run(spec)
    exploits = [exploit for trial in records.trials.values() for exploit in trial.exploits]
    assert exploits
    assert all(trial.state == "finished" for trial in records.trials.values())
    heir = next(trial for trial in records.trials.values() if trial.exploits)
    last = heir.exploits[-1]
    assert heir.parameters == last.after
    # These rows its worker has found in the checkpoint that it took over.
    taken_over = sum(row["seconds"] for row in heir.history[: last.donor_epoch])
    assert last.seconds_taken_over == pytest.approx(taken_over)
    assert f"trial {last.donor} as of epoch {last.donor_epoch}" in render(records)
    metrics = refit(records, heir, "cpu", 2, Watcher())
    assert Bundle.load(records.run.bundle).spec.metrics["accuracy"] == metrics["accuracy"]


@pytest.mark.slow
@pytest.mark.usefixtures("session")
def test_two_processes_report_the_network_that_their_trial_keeps(
    data: Path, tmp_path: Path
) -> None:
    spec = spec_of(
        data,
        tmp_path / "run",
        "learning_rate = {choice = [1e-3]}",
        # Batch norm's statistics are shared, too.
        config=override(get_recipe("cnn-122k"), [*SETTINGS, "epochs=8", "network=cnn-bn"]),
        num_trials=1,
        workers_per_trial=2,
    )
    records = run(spec)
    best = records.trials[0].best
    assert best is not None
    assert best["validation_accuracy"] > 0.9
    training, validation = images(spec.data, spec.config, 32)
    trainer = make_trainer(spec.config, training, torch.device("cpu"), Ranks())
    kept = averaged_weights(records.run.trial(0).training.checkpoints, int(best["epoch"]))
    trainer.averaged.load_state_dict(kept)
    reported = (best["validation_loss"], best["validation_accuracy"])
    assert trainer.validate(validation) == pytest.approx(reported, rel=1e-3)


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


def check_resumed(spec: SearchSpec, before: dict[int, tuple[bytes, int]]) -> None:
    """Resume in this test's Ray: what had ended is as it was, and the rest has ended too."""
    begun = {t.number: len(t.history) for t in Records.load(spec).trials.values()}
    assert before
    assert len(before) < spec.num_trials
    old = Records.load(spec)
    records = run(read_search(Path(spec.run)))
    after = ended_files(spec)
    assert {number: after[number] for number in before} == before
    assert sorted(after) == list(range(spec.num_trials))
    assert all(len(t.history) == spec.config.epochs for t in records.trials.values())
    for number, epochs in begun.items():
        kept = records.trials[number].history[:epochs]
        assert kept == old.trials[number].history, "epochs with a checkpoint are not trained again"
    records.write_parquet()
    rows = pq.read_table(records.run.trials).to_pylist()
    assert [row["trial"] for row in rows] == list(range(spec.num_trials))
    for number, (content, _) in before.items():
        rate = json.loads(content)["parameters"]["optimizer.learning_rate"]
        assert rows[number]["parameter.optimizer.learning_rate"] == rate


def test_a_killed_search_goes_on_and_no_ended_trial_runs_again(
    data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spec = spec_of(data, tmp_path / "run", num_trials=6)
    process = start(spec)
    wait_until_some_have_ended(spec, process)
    kill_with_its_ray(process, psutil.Process(process.pid))
    before = ended_files(spec)
    request.getfixturevalue("session")
    check_resumed(spec, before)


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
    check_resumed(spec, ended_files(spec))


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


@pytest.mark.usefixtures("session")
def test_the_benchmark_of_overhead_counts_the_trainings_of_warm_workers(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = override(get_recipe("cnn-122k"), SETTINGS)
    space = get_space("optimizer", config)
    benchmark.overhead(benchmark.Setting(str(data), space, tmp_path, config, 1, 1, 1, tmp_path))
    clocks = list((tmp_path / "overhead-0" / "trials").glob(f"*/{benchmark.CLOCK}"))
    assert len(clocks) == 2 * benchmark.EQUAL_ROUNDS
    ratio = re.search(r"ratio (\d+\.\d+)", capsys.readouterr().out)
    assert ratio is not None
    assert float(ratio[1]) > 1
