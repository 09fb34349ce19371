"""Training from other weights, as far as it can be proved without ImageNet's."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from cifar_ray.config.recipes import RECIPES, get_recipe
from cifar_ray.config.training import FROM_SCRATCH, TrainingSpec, override
from cifar_ray.errors import InputError
from cifar_ray.models import registry
from cifar_ray.runs import TrainingRun
from cifar_ray.training.data.dataset import LabelledImages
from cifar_ray.training.loop import Ranks, Trainer
from cifar_ray.training.pipeline import Watcher, make_trainer, train
from cifar_ray.training.resume import open_run
from tests.drawing import draw_classes

LARGE = ("vgg16-frozen", "vgg16-finetune", "fast96")
FEW = ("batch_size=8", "splits.num_training_images=null", "splits.num_validation_images=null")


def drawn(number: int, side: int = 32) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (number, side, side, 3), dtype=torch.uint8, generator=generator)
    return LabelledImages(images, torch.arange(number) % 10, tuple("abcdefghij"), (32,) * 4)


def weights_for(network: str, folder: Path) -> Path:
    """Save weights of the network that fits all but the head, for another number of classes."""
    torch.manual_seed(5)
    spec = registry.get(network)
    other = registry.build(spec.pretrained or network, 7)
    path = folder / "other.safetensors"
    save_file(other.state_dict(), path)
    return path


def trainer_of(recipe: str, images: LabelledImages, folder: Path, *settings: str) -> Trainer:
    config = override(get_recipe(recipe), [*FEW, *settings])
    weights = str(weights_for(config.network, folder)) if config.transfer.pretrained else None
    return make_trainer(config, images, torch.device("cpu"), Ranks(), weights)


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


@pytest.mark.parametrize(
    "recipe", [pytest.param(r, marks=pytest.mark.slow if r in LARGE else ()) for r in RECIPES]
)
def test_every_recipe_trains_a_few_steps(recipe: str, tmp_path: Path) -> None:
    images = drawn(16, side=64 if recipe in ("resnet50-frozen", "finetune") else 32)
    trainer = trainer_of(recipe, images, tmp_path)
    before = state_of(trainer)
    train_loss, _ = trainer.train_epoch(0, images, lambda step: None)
    assert 0 < train_loss < 50
    changed = [name for name, value in state_of(trainer).items() if not value.equal(before[name])]
    assert changed
    if trainer.config.transfer.frozen_epochs:
        assert all(name.startswith(trainer.head + ".") for name in changed)
    loss, accuracy = trainer.validate(images)
    assert loss > 0
    assert 0 <= accuracy <= 1


def test_what_is_frozen_stays_bit_equal_over_20_steps_and_moves_when_it_is_released(
    tmp_path: Path,
) -> None:
    images = drawn(40)
    trainer = trainer_of(
        "resnet18-finetune",
        images,
        tmp_path,
        "batch_size=2",
        "epochs=2",
        "transfer.frozen_epochs=1",
        "optimizer.name=adamw",
        "optimizer.weight_decay=0.1",
    )
    before = state_of(trainer)
    steps: list[int] = []
    trainer.train_epoch(0, images, lambda step: steps.append(step.num_steps))
    assert steps[-1] == 20
    frozen = state_of(trainer)
    for name, value in frozen.items():
        assert value.equal(before[name]) == (not name.startswith("fc.")), name
    trainer.train_epoch(1, images.select(torch.arange(4)), lambda step: None)
    released = state_of(trainer)
    still = [name for name, value in released.items() if value.equal(frozen[name])]
    assert still == []


def test_the_trunk_is_the_files_and_the_head_is_new(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    trainer = trainer_of("resnet50-mlp", drawn(16), tmp_path)
    given = load_file(tmp_path / "other.safetensors")
    state = state_of(trainer)
    assert state["fc.0.weight"].shape == (1024, 2048)
    for name, value in given.items():
        if not name.startswith("fc."):
            assert torch.equal(state[name], value)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    config = override(get_recipe("resnet18-finetune"), ["network=resnet50"])
    weights = weights_for("resnet18", tmp_path)
    with pytest.raises(InputError, match=r"do not fit resnet50 without its head:\n.*missing"):
        make_trainer(config, drawn(4), torch.device("cpu"), Ranks(), str(weights))


def test_without_weights_the_recipe_says_so_and_offers_to_train_from_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_RAY_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies it began with
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    config = get_recipe("resnet18-finetune")
    with pytest.raises(InputError, match=r"--weights FILE.*--from-scratch"):
        make_trainer(config, drawn(4), torch.device("cpu"), Ranks())


@pytest.mark.parametrize("recipe", RECIPES)
def test_from_scratch_no_recipe_needs_weights(recipe: str) -> None:
    config = override(get_recipe(recipe), list(FROM_SCRATCH))
    assert not config.transfer.pretrained
    assert config.transfer.frozen_epochs == 0


def test_freezing_random_weights_is_refused() -> None:
    with pytest.raises(InputError, match="would freeze random weights"):
        override(get_recipe("vgg16-frozen"), ["transfer.pretrained=false"])


def draw_mixtures(folder: Path, each: int) -> None:
    """Fill `folder` with three classes of colours that `draw_classes` does not have."""
    generator = torch.Generator().manual_seed(3)
    for number, name in enumerate(("cyan", "magenta", "yellow")):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            channels = torch.randint(150, 210, (3,), generator=generator).tolist()
            channels[number] -= 150
            Image.new("RGB", (32, 32), tuple(channels)).save(folder / name / f"{i:02}.png")


def test_a_head_trained_on_the_weights_of_another_task_works(tmp_path: Path) -> None:
    draw_classes(tmp_path / "colours", each=30)
    draw_mixtures(tmp_path / "mixtures", each=30)
    common = ["validation_fraction=0.2", "test_fraction=0.2", "batch_size=16"]
    first = TrainingSpec(
        config=override(get_recipe("cnn-122k"), [*common, "epochs=3"]),
        data=str(tmp_path / "colours"),
        run=str(tmp_path / "first"),
        code_version="0",
    )
    open_run(first)
    train(first, Ranks(), Watcher())
    weights = TrainingRun(Path(first.run)).bundle / "model.safetensors"
    settings = ["epochs=15", "transfer.pretrained=true", "transfer.frozen_epochs=15"]
    settings.append("optimizer.learning_rate=0.01")  # few steps: 60
    second = TrainingSpec(
        config=override(get_recipe("cnn-122k"), [*common, *settings]),
        data=str(tmp_path / "mixtures"),
        run=str(tmp_path / "second"),
        weights=str(weights),
        code_version="0",
    )
    open_run(second)
    metrics = train(second, Ranks(), Watcher())
    assert metrics is not None
    assert metrics["accuracy"] > 0.9
