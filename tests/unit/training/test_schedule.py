import math

import pytest
from torch import nn

from cifar_ray.config.optimization import EarlyStoppingConfig, OptimizerConfig, ScheduleConfig
from cifar_ray.config.training import TrainingConfig, TransferConfig
from cifar_ray.training.epoch import EpochRow
from cifar_ray.training.optimizer import build_optimizers
from cifar_ray.training.schedule import has_stopped, learning_rate_factor, set_learning_rate


def run_of(schedule: ScheduleConfig, epochs: int, **fields: object) -> TrainingConfig:
    optimizer = OptimizerConfig(name="sgd", learning_rate=0.1)
    return TrainingConfig(
        recipe="r",
        network="cnn-122k",
        epochs=epochs,
        batch_size=1,
        optimizer=optimizer,
        schedule=schedule,
        **fields,
    )


def factors(config: TrainingConfig, steps_per_epoch: int = 10) -> list[float]:
    steps = range(config.epochs * steps_per_epoch)
    return [learning_rate_factor(config, step, steps_per_epoch, ()) for step in steps]


def history_of(*losses: float) -> list[EpochRow]:
    return [EpochRow(i, 0.0, loss, 1 - loss, 0.0, 1.0, 1.0) for i, loss in enumerate(losses)]


@pytest.mark.parametrize("name", ["one-cycle", "cosine"])
def test_a_cycle_rises_to_one_and_falls_to_nearly_nothing(name: str) -> None:
    found = factors(run_of(ScheduleConfig(name=name, warmup_fraction=0.2), 10))
    assert max(found) == pytest.approx(1.0, abs=0.06)
    assert found.index(max(found)) in (19, 20)
    assert found[:20] == sorted(found[:20])
    assert found[20:] == sorted(found[20:], reverse=True)
    assert 0 < found[-1] < 0.02


def test_cosine_is_half_way_in_the_middle_and_flat_at_both_ends() -> None:
    found = factors(run_of(ScheduleConfig(name="cosine"), 10))
    assert found[0] == 1
    assert found[50] == pytest.approx(0.5)
    assert found[25] == pytest.approx(0.5 + math.sqrt(0.5) / 2)


def test_piecewise_goes_in_straight_lines_between_its_knots() -> None:
    knots = ((0, 0.0), (1, 1.0), (3, 0.0))
    found = factors(run_of(ScheduleConfig(name="piecewise", knots=knots), 3))
    assert [found[step] for step in (0, 5, 10, 20, 29)] == pytest.approx([0, 0.5, 1, 0.5, 0.05])
    with pytest.raises(ValueError, match="must rise"):
        ScheduleConfig(name="piecewise", knots=((1, 0.0), (1, 1.0)))


def test_stages_follow_each_other_and_the_last_one_goes_on() -> None:
    config = run_of(ScheduleConfig(name="staged", stages=((2, 0.3), (1, 0.05))), 5)
    assert factors(config, 1) == pytest.approx([3, 3, 0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"schedule\.stages is needed"):
        ScheduleConfig(name="staged")


def test_a_plateau_halves_the_rate_each_time_that_it_lasts() -> None:
    config = run_of(ScheduleConfig(name="plateau", plateau_patience=2), 20)

    def factor(*losses: float) -> float:
        return learning_rate_factor(config, len(losses) * 10, 10, history_of(*losses))

    assert factor() == 1
    assert factor(0.5, 0.4, 0.45) == 1
    assert factor(0.5, 0.4, 0.45, 0.41) == 0.5
    assert factor(0.5, 0.4, 0.45, 0.41, 0.39, 0.4) == 0.5
    assert factor(0.5, 0.4, 0.45, 0.41, 0.4, 0.4) == 0.25


def test_early_stopping_waits_for_its_patience_after_the_best_epoch() -> None:
    config = EarlyStoppingConfig(patience=2)
    assert not has_stopped(config, history_of())
    assert not has_stopped(config, history_of(0.5, 0.6))
    assert has_stopped(config, history_of(0.5, 0.6, 0.7))
    assert not has_stopped(config, history_of(0.5, 0.6, 0.4, 0.7))
    assert not has_stopped(EarlyStoppingConfig(), history_of(0.5, 0.6, 0.7, 0.8))
    assert has_stopped(
        EarlyStoppingConfig(patience=2, monitor="validation_accuracy"), history_of(0.5, 0.5, 0.5)
    )


def test_the_rate_changes_when_the_trunk_is_released() -> None:
    transfer = TransferConfig(pretrained=True, frozen_epochs=2, unfrozen_factor=0.1)
    config = run_of(ScheduleConfig(), 4, transfer=transfer)
    assert factors(config, 1) == [1, 1, 0.1, 0.1]


def test_the_factor_is_of_the_first_rate_however_often_it_is_set() -> None:
    network = nn.Linear(2, 2)
    optimizers = build_optimizers(network, OptimizerConfig(name="sgd", learning_rate=0.5))
    for factor in (0.5, 0.1, 1.0):
        set_learning_rate(optimizers, factor)
        assert optimizers[0].param_groups[0]["lr"] == 0.5 * factor
