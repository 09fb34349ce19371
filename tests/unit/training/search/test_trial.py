import errno
import json
from pathlib import Path

import pytest
import torch

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.spaces import Parameters, apply
from cifar_ray.config.training import TrainingSpec, override
from cifar_ray.errors import CifarRayError, InputError
from cifar_ray.runs import SearchRun, TrialRun
from cifar_ray.training.loop import EpochRow, Ranks
from cifar_ray.training.search.budget import EpochBudget
from cifar_ray.training.search.trial import attempt, cause, hold_trial, take_over, train_trial
from tests.drawing import draw_classes

SETTINGS = ("epochs=3", "batch_size=16", "validation_fraction=0.2", "schedule.name=constant")
BASE = override(get_recipe("cnn-122k"), list(SETTINGS))


class Paused(BaseException):
    """What Tune raises in a worker whose trial it pauses or stops."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial") / "classes"
    draw_classes(folder, each=12)
    return folder


def spec_of(data: Path, trial: TrialRun, parameters: Parameters) -> TrainingSpec:
    config = apply(BASE, parameters)
    return TrainingSpec(config=config, data=str(data), run=str(trial.folder), code_version="0")


def budget_of(trial: TrialRun, limit: int | None) -> EpochBudget:
    return EpochBudget(SearchRun(trial.folder.parent), 0, limit)


def losses(rows: list[EpochRow]) -> list[tuple[float, float]]:
    return [(row.train_loss, row.validation_loss) for row in rows]


def run(
    data: Path,
    trial: TrialRun,
    rate: float,
    stop_after: int = 99,
    decay: float = 0.0,
    limit: int | None = None,
) -> list[EpochRow]:
    """Train a trial as a worker does, until Tune stops it."""
    rows: list[EpochRow] = []

    def tell(row: EpochRow) -> None:
        rows.append(row)
        if row.epoch + 1 == stop_after:
            raise Paused

    try:
        with hold_trial(trial, tell) as report, attempt(trial):
            parameters = {"optimizer.learning_rate": rate, "weight_average_decay": decay}
            spec = spec_of(data, trial, parameters)
            train_trial(spec, BASE, Ranks(), report, budget_of(trial, limit))
    except Paused:
        pass
    return rows


def test_a_trial_that_goes_on_is_the_trial_undisturbed(data: Path, tmp_path: Path) -> None:
    whole = run(data, TrialRun(tmp_path / "whole"), 1e-3)
    trial = TrialRun(tmp_path / "stopped")
    run(data, trial, 1e-3, stop_after=2)
    again = run(data, trial, 1e-3)
    assert [row.epoch for row in again] == [0, 1, 2], "trained epochs are told again"
    assert losses(again) == losses(whole)
    assert not trial.failure.exists()


def test_a_trial_ends_where_its_search_may_train_no_more_also_when_it_goes_on(
    data: Path, tmp_path: Path
) -> None:
    trial = TrialRun(tmp_path / "trial")
    assert len(run(data, trial, 1e-3, stop_after=1, limit=2)) == 1
    assert len(run(data, trial, 1e-3, limit=2)) == 2, "the first one counts"
    assert len(run(data, trial, 1e-3, limit=2)) == 2
    assert budget_of(trial, 2).was_refused
    assert not trial.failure.exists()


def test_a_trial_without_an_epoch_reads_no_images(tmp_path: Path) -> None:
    trial = TrialRun(tmp_path / "trial")
    other = EpochBudget(SearchRun(tmp_path), 1, 1)
    assert other.take()
    assert run(tmp_path / "nowhere", trial, 1e-3, limit=1) == []
    assert not trial.failure.exists()


def test_an_epoch_whose_loss_is_not_finite_is_used_up(data: Path, tmp_path: Path) -> None:
    trial = TrialRun(tmp_path / "trial")
    assert run(data, trial, 1e30, limit=1) == []
    assert trial.failure.exists()
    assert not EpochBudget(SearchRun(tmp_path), 1, 1).take()


def test_a_paused_trial_leaves_its_folder_to_another_worker(data: Path, tmp_path: Path) -> None:
    trial = TrialRun(tmp_path / "trial")

    def never_returns(row: EpochRow) -> None:
        with hold_trial(trial, lambda row: None):
            raise Paused

    with pytest.raises(Paused), hold_trial(trial, never_returns) as report:
        train_trial(spec_of(data, trial, {}), BASE, Ranks(), report, budget_of(trial, None))


def test_a_member_goes_on_from_its_donor_with_its_own_parameters(
    data: Path, tmp_path: Path
) -> None:
    donor, heir = TrialRun(tmp_path / "donor"), TrialRun(tmp_path / "heir")
    given = run(data, donor, 1e-3, stop_after=2)
    run(data, heir, 1e-5, stop_after=1)
    with hold_trial(heir, lambda row: None):
        take_over(heir, donor.training.checkpoints)
    rows = run(data, heir, 5e-4)
    assert losses(rows[:2]) == losses(given)
    assert [row.learning_rate for row in rows] == [1e-3, 1e-3, 5e-4]
    history = json.loads(heir.training.history.read_text())
    assert [row["epoch"] for row in history] == [0, 1, 2]


@pytest.mark.parametrize(("of_donor", "of_heir"), [(0.0, 0.5), (0.5, 0.0)])
def test_a_member_may_begin_or_leave_the_average_of_weights(
    of_donor: float, of_heir: float, data: Path, tmp_path: Path
) -> None:
    donor, heir = TrialRun(tmp_path / "donor"), TrialRun(tmp_path / "heir")
    given = run(data, donor, 1e-3, stop_after=2, decay=of_donor)
    with hold_trial(heir, lambda row: None):
        take_over(heir, donor.training.checkpoints)
    # So small a rate leaves the weights where the donor's were.
    rows = run(data, heir, 1e-30, decay=of_heir)
    assert not heir.failure.exists()
    assert [row.epoch for row in rows] == [0, 1, 2]
    if not of_donor:
        assert rows[2].validation_loss == pytest.approx(given[1].validation_loss, rel=1e-6)


def test_a_trial_that_diverges_says_so_and_raises_nothing(data: Path, tmp_path: Path) -> None:
    trial = TrialRun(tmp_path / "trial")
    assert run(data, trial, 1e30) == []
    assert "finite" in json.loads(trial.failure.read_text())["error"]
    run(data, trial, 1e-3)
    assert not trial.failure.exists(), "an earlier attempt's failure does not count"


def test_parameters_that_do_not_go_together_are_the_trials_failure(
    data: Path, tmp_path: Path
) -> None:
    trial = TrialRun(tmp_path / "trial")
    with hold_trial(trial, lambda row: None), attempt(trial):
        spec_of(data, trial, {"optimizer.name": "muon"})
    assert "other_learning_rate" in json.loads(trial.failure.read_text())["error"]


def test_wrong_input_is_no_fault_of_the_trials(tmp_path: Path) -> None:
    trial = TrialRun(tmp_path / "trial")
    run(tmp_path / "nowhere", trial, 1e-3)
    told = json.loads(trial.failure.read_text())
    assert told["exit_code"] == InputError.exit_code
    assert "nowhere is not there" in told["error"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CifarRayError("diverged"), "diverged"),
        (MemoryError(), "Out of memory."),
        (torch.OutOfMemoryError("CUDA out of memory.\nMore"), "Out of memory. CUDA out of memory."),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Out of memory. [Errno 12]"),
        (OSError(errno.ENOSPC, "No space left"), "OSError: [Errno 28]"),
        (RuntimeError("[x] DefaultCPUAllocator: can't allocate"), "Out of memory. [x] Default"),
        (ValueError("a\nb"), "ValueError: a"),
    ],
)
def test_causes_are_one_line(error: Exception, text: str) -> None:
    assert cause(error).startswith(text)
    assert "\n" not in cause(error)
