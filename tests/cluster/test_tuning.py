"""Hyperparameter search on Ray Tune: what trials leave behind."""

import re
from pathlib import Path

import pytest
import torch

from benchmarks import tune as benchmark
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.spaces import get_space
from cifar_ray.config.training import override
from cifar_ray.errors import InputError
from cifar_ray.models.bundle import Bundle
from cifar_ray.on_ray.tuning.events import KILLED
from cifar_ray.on_ray.tuning.search import search
from cifar_ray.training.checkpoint import averaged_weights
from cifar_ray.training.loop import Ranks
from cifar_ray.training.pipeline import Watcher, make_trainer
from cifar_ray.training.search.record import Records
from cifar_ray.training.search.refit import refit
from cifar_ray.training.search.report import render
from cifar_ray.training.search.trial import images
from tests.cluster.conftest import processes_of
from tests.cluster.searches import SETTINGS, WORKER, run, spec_of
from tests.drawing import draw_classes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning") / "classes"
    draw_classes(folder, each=40)
    return folder


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
def test_a_trial_without_enough_memory_costs_itself_only(data: Path, tmp_path: Path) -> None:
    spec = spec_of(
        data,
        tmp_path / "run",
        "small_image_px = {choice = [32, 3000000]}\nlearning_rate = {choice = [1e-3, 3e-3]}",
        config=override(get_recipe("cnn-122k"), [*SETTINGS, "small_image_fraction=0.5"]),
        search="grid",
        scheduler="median",
    )
    records = run(spec)
    states = [records.trials[number].state for number in range(4)]
    assert states[2:] == ["failed", "failed"]
    assert {"failed", "budget", "running"}.isdisjoint(states[:2])
    assert (records.trials[2].error or "").startswith("Out of memory.")
    assert "Out of memory." in render(records)
    best = records.best()
    assert best is not None
    assert best.number in (0, 1)


@pytest.mark.usefixtures("session")
def test_a_search_ends_with_the_epochs_that_it_may_train(data: Path, tmp_path: Path) -> None:
    spec = spec_of(data, tmp_path / "run", scheduler="asha", num_trials=5, epoch_budget=6)
    records = run(spec)
    assert records.epochs_trained == 6
    assert len(records.trials) == 5
    states = {trial.state for trial in records.trials.values()}
    assert "budget" in states
    assert states <= {"finished", "stopped", "budget"}
    assert not any(trial.error for trial in records.trials.values())
    assert records.best() is not None


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
        config=override(get_recipe("cnn-122k"), [*SETTINGS, "epochs=9", "network=cnn-bn"]),
        num_trials=1,
        workers_per_trial=2,
        epoch_budget=8,
    )
    records = run(spec)
    assert (records.trials[0].state, records.epochs_trained) == ("budget", 8)
    best = records.trials[0].best
    assert best is not None
    assert best["validation_accuracy"] > 0.9
    training, validation = images(spec.data, spec.config, 32)
    trainer = make_trainer(spec.config, training, torch.device("cpu"), Ranks())
    kept = averaged_weights(records.run.trial(0).training.checkpoints, int(best["epoch"]))
    trainer.averaged.load_state_dict(kept)
    reported = (best["validation_loss"], best["validation_accuracy"])
    assert trainer.validate(validation) == pytest.approx(reported, rel=1e-3)


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
