import torch
from torch import nn
from torch.nn import functional

from cifar_ray.config.optimization import OptimizerConfig
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import override
from cifar_ray.models import registry
from cifar_ray.training.averaging import WeightAverage
from cifar_ray.training.data.dataset import LabelledImages
from cifar_ray.training.epoch import Step
from cifar_ray.training.evaluation.views import mean_logits
from cifar_ray.training.loop import Ranks, Trainer
from cifar_ray.training.optimizer import build_optimizers

STATISTICS = ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def trainer_of(*settings: str, ranks: Ranks | None = None) -> Trainer:
    torch.manual_seed(0)
    config = override(get_recipe("cnn-122k"), ["batch_size=10", *settings])
    network = registry.build("cnn-122k", 3)
    return Trainer(config, network, STATISTICS, torch.device("cpu"), ranks or Ranks())


def drawn(labels: list[int]) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    shape = (len(labels), 32, 32, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return LabelledImages(images, torch.tensor(labels), ("a", "b", "c"), (32,) * 4)


def test_a_fused_step_is_the_step_of_plain_adam_for_a_channels_last_network() -> None:
    config = OptimizerConfig(name="adam", learning_rate=1e-2, weight_decay=0.01)
    torch.manual_seed(0)
    inputs = torch.randn(8, 3, 32, 32)
    states = []
    for plain in (False, True):
        torch.manual_seed(1)
        network = registry.build("cnn-122k", 10).to(memory_format=torch.channels_last)
        (optimizer,) = build_optimizers(network, config)
        if plain:
            optimizer = torch.optim.Adam(
                network.parameters(), lr=1e-2, weight_decay=0.01, fused=False, foreach=False
            )
        for _ in range(3):
            loss = functional.cross_entropy(network(inputs), torch.arange(8))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        states.append(network.state_dict())
    for name, value in states[1].items():
        torch.testing.assert_close(states[0][name], value, rtol=1e-3, atol=1e-4)


def test_balanced_weights_give_rare_classes_the_weight_of_common_ones() -> None:
    data = drawn([0] * 16 + [1] * 3 + [2])
    trainer = trainer_of("class_weights=balanced", "batch_size=20")
    weights = trainer._class_weights(data)
    assert weights is not None
    per_class = torch.bincount(data.labels) * weights
    torch.testing.assert_close(per_class, torch.full((3,), 20 / 3))
    logits = torch.zeros(20, 3)
    loss = trainer._loss(logits, data.labels, weights)
    torch.testing.assert_close(loss, torch.log(torch.tensor(3.0)))


def test_the_mean_loss_is_over_images_though_the_last_batch_is_short() -> None:
    data = drawn([0, 1, 2] * 4)
    trainer = trainer_of("optimizer.learning_rate=1e-12")
    expected, _ = trainer.validate(data)
    loss, _ = trainer.train_epoch(0, data, lambda step: None)
    assert abs(loss - expected) < 1e-4


def test_training_accuracy_counts_the_images_of_all_ranks() -> None:
    data = drawn([0, 1, 2] * 7)
    slow = ("optimizer.learning_rate=1e-12", "batch_size=7")
    _, expected = trainer_of(*slow).validate(data)
    assert 0 < expected < 1
    assert trainer_of(*slow).train_epoch(0, data, lambda step: None)[1] == expected
    sums: list[torch.Tensor] = []
    for rank in range(2):
        trainer = trainer_of(*slow, ranks=Ranks(rank, 2, add=lambda totals: sums.append(totals)))
        trainer.train_epoch(0, data, lambda step: None)
    assert float(sums[0][1] + sums[1][1]) == expected * len(data)


def test_mixed_images_have_no_training_accuracy() -> None:
    trainer = trainer_of("augment.mixup_alpha=0.2")
    _, accuracy = trainer.train_epoch(0, drawn([0, 1, 2] * 10), lambda step: None)
    assert accuracy is None


def test_a_display_hears_of_the_last_step_of_an_epoch() -> None:
    steps: list[Step] = []
    trainer_of().train_epoch(0, drawn([0, 1, 2] * 10), steps.append)
    assert (steps[-1].step, steps[-1].num_steps) == (3, 3)


def test_an_average_follows_and_without_decay_is_the_network_itself() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert WeightAverage(network, 0.0).network is network
    average = WeightAverage(network, 0.9)
    before = average.network[0].weight.clone()
    with torch.no_grad():
        network[0].weight += 1
        network[1].num_batches_tracked += 5
    average.follow()
    torch.testing.assert_close(average.network[0].weight, before + 0.1)
    assert int(average.network[1].num_batches_tracked) == 5
    average.restart()
    assert torch.equal(average.network[0].weight, network[0].weight)


def test_views_are_averaged_over_mirrored_and_shifted_images() -> None:
    network = registry.build("cnn-122k", 3).eval()
    inputs = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        plain, mirrored = network(inputs), network(inputs.flip(3))
        torch.testing.assert_close(mean_logits(network, inputs, "none"), plain)
        both = mean_logits(network, inputs, "flip")
        torch.testing.assert_close(both, (plain + mirrored) / 2)
        torch.testing.assert_close(mean_logits(network, inputs.flip(3), "flip"), both)
        assert not torch.allclose(mean_logits(network, inputs, "flip-shift"), both)
