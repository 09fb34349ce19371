import pytest
import torch
from torch import nn

from cifar_ray.config.optimization import OptimizerConfig
from cifar_ray.training.optimizer import (
    build_optimizers,
    orthogonalise,
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
