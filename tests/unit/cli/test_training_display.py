"""What a training run shows on a terminal."""

from cifar_ray.cli.training_display import TrainingDisplay
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingSpec
from cifar_ray.training.epoch import EpochRow, Step


def test_the_bar_tells_loss_speed_and_the_last_accuracy() -> None:
    config = get_recipe("cnn-122k").model_copy(update={"epochs": 2})
    spec = TrainingSpec(
        config=config, data="d", run="r", device="cpu", threads=1, workers=1, code_version="0"
    )
    display = TrainingDisplay(spec)
    (task,) = display.bar.tasks
    display.on_step(Step(epoch=0, step=1, num_steps=2, loss=2.3, seconds=1, images_per_second=500))
    assert task.fields["text"] == "epoch 1/2 · loss 2.300 · 500 images/s · 3 s left"
    display.on_epoch(EpochRow(0, 2.0, 1.9, 0.4321, 0.1, seconds=2, images_per_second=500))
    display.on_step(Step(epoch=1, step=1, num_steps=2, loss=1.8, seconds=1, images_per_second=500))
    assert task.fields["text"] == (
        "epoch 2/2 · loss 1.800 · validation 43.21% · 500 images/s · 1 s left"
    )
