import shlex

import pytest

from cifar_ray.config.recipes import RECIPES, get_recipe
from cifar_ray.config.recipes.reports import REPORTED
from cifar_ray.config.training import TrainingSpec, override
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


def test_fields_that_do_not_go_together_are_told() -> None:
    with pytest.raises(InputError, match=r"schedule\.stages is needed"):
        override(get_recipe("cnn-122k"), ["schedule.name=staged"])
    with pytest.raises(InputError, match="would freeze random weights"):
        override(get_recipe("cnn-122k"), ["transfer.frozen_epochs=3"])


def test_stages_can_be_set_as_json() -> None:
    settings = ["schedule.name=staged", "schedule.stages=[[5,0.1],[2,0.01]]"]
    assert override(get_recipe("cnn-122k"), settings).schedule.stages == ((5, 0.1), (2, 0.01))


def test_reports_and_recipes_have_the_same_names() -> None:
    assert set(REPORTED) < set(RECIPES)


def test_the_command_of_a_run_trains_it_again() -> None:
    spec = TrainingSpec(
        config=get_recipe("cnn-122k"),
        data="/home/me/photos",
        run="r",
        settings=("schedule.stages=[[5, 0.1]]", "epochs=5"),
        code_version="0",
    )
    words = shlex.split(spec.command)
    assert words[:4] == ["cifar-ray", "train", "FOLDER", "--recipe"]
    assert words[-3:] == ["schedule.stages=[[5, 0.1]]", "--set", "epochs=5"]
