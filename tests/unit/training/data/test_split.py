import pytest
import torch

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingConfig, override
from cifar_ray.errors import InputError
from cifar_ray.training.data.dataset import LabelledImages
from cifar_ray.training.data.sources import Data
from cifar_ray.training.data.split import Splits, split_data


def numbered(numbers: list[int], labels: list[int] | None = None) -> LabelledImages:
    """One-pixel images, each showing its number; equal numbers are equal images."""
    pixels = torch.tensor(numbers)
    images = torch.stack([pixels // 256, pixels % 256, pixels * 0], dim=1).to(torch.uint8)
    classes = pixels % 3 if labels is None else torch.tensor(labels)
    return LabelledImages(images.view(-1, 1, 1, 3), classes, ("a", "b", "c"), (1, 1, 1, 1))


def config_of(*settings: str) -> TrainingConfig:
    return override(
        get_recipe("cnn-122k"),
        ["validation_fraction=0.1", "test_fraction=0.2", *settings],
    )


def ids(data: LabelledImages | None) -> list[int]:
    assert data is not None
    pixels = data.images.view(-1, 3).long()
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


def parts(splits: Splits) -> list[list[int]]:
    return [ids(part) for part in (splits.validation, splits.test, splits.train)]


def test_splits_are_disjoint_stratified_and_decided_by_the_seed() -> None:
    data = Data("d", numbered(list(range(300))), None)
    splits = split_data(data, config_of())
    found = parts(splits)
    assert [len(part) for part in found] == [30, 60, 210]
    assert len({*found[0], *found[1], *found[2]}) == 300
    for part in (splits.train, splits.validation, splits.test):
        assert part is not None
        assert torch.bincount(part.labels).unique().numel() == 1
    assert parts(split_data(data, config_of())) == found
    assert parts(split_data(data, config_of("seed=2"))) != found
    assert splits.duplicates.copies == splits.duplicates.left_out == 0


def test_copies_of_an_image_never_lie_in_two_splits_whatever_their_labels() -> None:
    numbers = [*range(200), *range(100)]
    labels = [number % 3 for number in numbers[:200]] + [0] * 100
    splits = split_data(Data("d", numbered(numbers, labels), None), config_of())
    validation, test, training = (set(part) for part in parts(splits))
    assert not validation & test
    assert not validation & training
    assert not test & training
    assert splits.duplicates.copies == 100
    assert 0 < splits.duplicates.left_out <= 100
    assert sum(map(len, parts(splits))) == 300 - splits.duplicates.left_out


def test_images_that_are_among_the_test_images_are_not_trained_on() -> None:
    data = Data("d", numbered(list(range(100))), numbered(list(range(90, 120))))
    splits = split_data(data, config_of("splits.leave_test_images=false"))
    assert len(ids(splits.test)) == 30
    assert not {*range(90, 120)} & {*ids(splits.train), *ids(splits.validation)}
    assert (splits.duplicates.copies, splits.duplicates.left_out) == (10, 10)


def test_test_images_that_are_left_alone_are_not_the_last_number() -> None:
    data = Data("d", numbered(list(range(300))), numbered(list(range(400, 430))))
    assert len(ids(split_data(data, config_of("splits.leave_test_images=true")).test)) == 60


def test_numbers_of_images_are_met_exactly_and_classes_stay_in_proportion() -> None:
    labels = [0] * 150 + [1] * 100 + [2] * 50
    data = Data("d", numbered(list(range(300)), labels), None)
    settings = ("splits.num_training_images=100", "splits.num_validation_images=50")
    splits = split_data(data, config_of(*settings, "test_fraction=0"))
    assert torch.bincount(splits.train.labels).tolist() == [50, 33, 17]
    assert torch.bincount(splits.validation.labels).tolist() == [25, 17, 8]
    assert splits.test is None


def test_too_few_images_are_told() -> None:
    data = Data("d", numbered(list(range(30))), None)
    with pytest.raises(InputError, match="30 images, too few for the numbers"):
        split_data(data, config_of("splits.num_training_images=100"))
    with pytest.raises(InputError, match="too few to split by cnn-122k"):
        split_data(Data("d", numbered([1, 2, 3]), None), config_of())
