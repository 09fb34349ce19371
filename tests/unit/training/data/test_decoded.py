from pathlib import Path

import pytest
import torch

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import override
from cifar_ray.errors import InputError
from cifar_ray.training.data.dataset import LabelledImages, decode_all, read_folder
from cifar_ray.training.data.sources import Data, geometry
from cifar_ray.training.data.split import split_data
from cifar_ray.training.loop import Ranks
from cifar_ray.training.pipeline import make_trainer
from tests.drawing import draw_classes


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CIFAR_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    draw_classes(tmp_path / "classes", each=10)
    return tmp_path / "classes"


def decode(classes: Path, memory_bytes: int) -> LabelledImages:
    return decode_all(read_folder(str(classes)), geometry(32), memory_bytes)


def weights_after_an_epoch(data: LabelledImages) -> dict[str, torch.Tensor]:
    config = override(get_recipe("cnn-122k"), ["test_fraction=0.2", "batch_size=5"])
    splits = split_data(Data("d", data, None), config)
    trainer = make_trainer(config, splits.train, torch.device("cpu"), Ranks())
    trainer.train_epoch(0, splits.train.to(torch.device("cpu")), lambda step: None)
    return trainer.network.state_dict()


def test_training_from_a_file_is_training_from_memory(classes: Path, cache: Path) -> None:
    in_file, in_memory = decode(classes, 0), decode(classes, 10**9)
    assert in_file.is_mapped
    assert not in_memory.is_mapped
    assert in_file.size_range == in_memory.size_range
    ours, expected = weights_after_an_epoch(in_file), weights_after_an_epoch(in_memory)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert sorted(path.suffix for path in cache.iterdir()) == [".npy", ".pixels"]


def test_what_is_decoded_is_found_again_until_an_image_changes(classes: Path, cache: Path) -> None:
    decode(classes, 0)
    pixels = next(cache.glob("*.pixels"))
    made = pixels.stat().st_mtime_ns
    decode(classes, 0)
    assert pixels.stat().st_mtime_ns == made
    (classes / "red" / "00.png").write_bytes((classes / "red" / "01.png").read_bytes())
    assert torch.equal(decode(classes, 0).images[20], decode(classes, 10**9).images[21])


def test_an_image_that_cannot_be_decoded_leaves_no_file(classes: Path, cache: Path) -> None:
    (classes / "red" / "bad.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"bad\.png: not_an_image"):
        decode(classes, 0)
    assert list(cache.iterdir()) == []
