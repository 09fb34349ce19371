import pytest
import torch
from torch import nn

from cifar_ray.config.training import OptimizerConfig, ScheduleConfig
from cifar_ray.training.optimizer import (
    build_optimizers,
    learning_rate_factor,
    orthogonalise,
    set_learning_rate,
)


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (32, 32)])
def test_orthogonalising_brings_singular_values_near_one_and_keeps_directions(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    result = orthogonalise(matrix, steps=8)
    assert result.shape == matrix.shape
    singular = torch.linalg.svdvals(result)
    assert 0.6 < float(singular.min()) <= float(singular.max()) < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert float((result * (u @ v)).sum() / result.norm() / (u @ v).norm()) > 0.97


def test_muon_takes_the_filters_and_adam_the_rest_and_frozen_weights_stay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.LazyLinear(2))
    network(torch.randn(2, 3, 8, 8))
    network[0].bias.requires_grad_(False)
    config = OptimizerConfig(name="muon", learning_rate=0.1, other_learning_rate=0.01)
    muon, adam = build_optimizers(network, config)
    assert [p.ndim for p in muon.param_groups[0]["params"]] == [4]
    assert sorted(p.ndim for p in adam.param_groups[0]["params"]) == [1, 1, 1, 2]
    before = network[0].bias.clone()
    for _ in range(3):
        network(torch.randn(4, 3, 8, 8)).square().sum().backward()
        muon.step()
        adam.step()
    assert torch.equal(network[0].bias, before)


def test_muon_without_the_other_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="other_learning_rate"):
        OptimizerConfig(name="muon", learning_rate=0.1)


def test_one_cycle_rises_to_one_and_falls_to_nearly_nothing() -> None:
    config = ScheduleConfig(name="one-cycle", warmup_fraction=0.2)
    factors = [learning_rate_factor(config, step, 10, 10) for step in range(100)]
    assert max(factors) == pytest.approx(1.0, abs=0.06)
    assert factors.index(max(factors)) in (19, 20)
    assert factors[:20] == sorted(factors[:20])
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert 0 < factors[-1] < 0.02


def test_the_factor_is_of_the_first_rate_however_often_it_is_set() -> None:
    network = nn.Linear(2, 2)
    optimizers = build_optimizers(network, OptimizerConfig(name="sgd", learning_rate=0.5))
    for factor in (0.5, 0.1, 1.0):
        set_learning_rate(optimizers, factor)
        assert optimizers[0].param_groups[0]["lr"] == 0.5 * factor


def test_piecewise_goes_in_straight_lines_between_its_knots() -> None:
    config = ScheduleConfig(name="piecewise", knots=((0, 0.0), (1, 1.0), (3, 0.0)))
    factors = [learning_rate_factor(config, step, 10, 3) for step in (0, 5, 10, 20, 29)]
    assert factors == pytest.approx([0, 0.5, 1, 0.5, 0.05])
    with pytest.raises(ValueError, match="must rise"):
        ScheduleConfig(name="piecewise", knots=((1, 0.0), (1, 1.0)))
