"""`recipes` as a user gives it."""

import json

import pytest

from cifar_ray.cli.recipes import recipes
from cifar_ray.config.recipes import RECIPES, get_recipe
from cifar_ray.config.recipes.reports import REPORTED
from cifar_ray.config.training import TrainingConfig, override
from tests.unit.cli.conftest import Cli


def test_recipes_are_listed_with_parameters_schedule_and_what_they_reached(cli: Cli) -> None:
    code, printed = cli("recipes", "--json")
    assert code == 0
    listed = {row["name"]: row for row in json.loads(printed)}
    assert list(listed) == list(RECIPES)
    assert listed["cnn-2.9m"]["parameters"] == 2_915_114
    assert listed["resnet-blocks"]["schedule"] == "staged"
    assert listed["vgg16-frozen"]["pretrained"]
    code, printed = cli("recipes")
    assert code == 0
    assert "cnn-3conv" in printed
    words = " ".join(printed.split())
    assert "resnet18 (11,181,642 parameters, from ImageNet's weights)" in words
    assert (
        "speednet-2m (2,194,552 parameters, from --weights FILE)" in words
    )  # nobody publishes any


def test_a_recipe_that_was_not_run_shows_what_its_report_says_if_there_is_one(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    untried = get_recipe("cnn-122k").model_copy(update={"expected_accuracy": None})
    tried = untried.model_copy(update={"expected_accuracy": 0.7234, "minutes": 4.0})

    def listed(config: TrainingConfig) -> str:
        monkeypatch.setitem(RECIPES, "cnn-122k", lambda: config)
        code, printed = cli("recipes")
        assert code == 0
        return printed

    assert "rate · reached 72.3% · 4 min" in listed(tried)
    assert "rate · not run on CIFAR-10 yet, reported 71.1%" in listed(untried)
    monkeypatch.delitem(REPORTED, "cnn-122k")
    assert "rate · not run on CIFAR-10 yet resnet50-frozen" in listed(untried)


def test_fields_of_a_recipe_are_shown_as_set_takes_them(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    config = get_recipe("cnn-122k")
    told = ("recipe", "expected_accuracy", "minutes")
    for name in RECIPES:
        recipes(name)
        settings = capsys.readouterr().out.splitlines()
        kept = {field: getattr(get_recipe(name), field) for field in told}
        assert override(config, settings).model_copy(update=kept) == get_recipe(name)
    code, printed = cli("recipes", "resnet-blocks", "--json")
    assert code == 0
    assert json.loads(printed)["schedule.stages"] == [[20, 3e-4], [10, 1e-4], [5, 5e-5]]


def test_an_unknown_recipe_is_refused_with_the_nearest(cli: Cli) -> None:
    code, printed = cli("recipes", "cnn-123k")
    assert code == 2
    assert "cnn-122k" in printed
