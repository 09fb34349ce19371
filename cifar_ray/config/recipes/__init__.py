"""The recipes: each a named function that returns a whole training config.

`expected_accuracy` is what a run of the recipe reached on CIFAR-10's test images (of its own split
where it takes one); it is None as long as no run did.
"""

from collections.abc import Callable

from cifar_ray.config.recipes import box, fast, own, reports
from cifar_ray.config.training import TrainingConfig
from cifar_ray.errors import InputError, did_you_mean

RECIPES: dict[str, Callable[[], TrainingConfig]] = {
    "cnn-122k": reports.cnn_122k,
    "resnet50-frozen": reports.resnet50_frozen,
    "cnn-2.9m": reports.cnn_2_9m,
    "resnet50-mlp": reports.resnet50_mlp,
    "resnet-blocks": reports.resnet_blocks,
    "cnn-bn-plain": reports.cnn_bn_plain,
    "cnn-bn": reports.cnn_bn,
    "cnn-3conv": reports.cnn_3conv,
    "resnet18-finetune": reports.resnet18_finetune,
    "vgg16-frozen": reports.vgg16_frozen,
    "vgg16-finetune": reports.vgg16_finetune,
    "fast94": fast.fast94,
    "fast95": fast.fast95,
    "fast96": fast.fast96,
    "finetune": own.finetune,
    "speednet-box-start": box.speednet_box_start,
    "speednet-box": box.speednet_box,
}


def get_recipe(name: str) -> TrainingConfig:
    """Return the config of a recipe; `InputError` names the nearest ones."""
    if name not in RECIPES:
        raise InputError(f"There is no recipe {name!r}. {did_you_mean(name, RECIPES)}")
    return RECIPES[name]()
