import pytest

from cifar_ray.config.recipes import RECIPES, get_recipe
from cifar_ray.config.training import override
from cifar_ray.errors import InputError


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_whole_config_named_as_it_is_listed(name: str) -> None:
    assert get_recipe(name).recipe == name


def test_settings_change_what_they_name_and_nothing_else() -> None:
    recipe = get_recipe("cnn-122k")
    changed = override(recipe, ["epochs=3", "optimizer.learning_rate=5e-4", "augment.flip=random"])
    assert (changed.epochs, changed.optimizer.learning_rate) == (3, 5e-4)
    assert changed.augment.flip == "random"
    back = override(changed, ["epochs=10", "optimizer.learning_rate=0.001", "augment.flip=none"])
    assert back == recipe


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("epochs", "key=value"),
        ("epoch=3", "Did you mean epochs"),
        ("optimizer.learningrate=1", "Did you mean optimizer.learning_rate"),
        ("optimizer=1", "there is no such field"),
        ("epochs=many", "epochs: .*valid integer.*'many'"),
        ("epochs=0", "greater than 0"),
        ("augment.flip=up", "augment.flip"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(setting: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        override(get_recipe("cnn-122k"), [setting])


def test_a_misspelt_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean cnn-122k"):
        get_recipe("cnn-122")
