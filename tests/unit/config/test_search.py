from itertools import pairwise
from random import Random

import pytest

from cifar_ray.config.distributions import Range
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.search import SearchSpec, check_search, planned, random_parameters
from cifar_ray.config.spaces import apply, get_space, named_spaces, parse_space
from cifar_ray.errors import InputError

CONFIG = get_recipe("cnn-122k")
SPACE = """
learning_rate = {log_uniform = [1e-4, 1e-1]}
batch_size = {choice = [64, 128, 256]}
[augment]
translate_px = {int_uniform = [0, 4]}
flip = {choice = ["none", "random"]}
"""


def spec_of(space: str = SPACE, **changes: object) -> SearchSpec:
    values = {
        "config": CONFIG,
        "space": parse_space("drawn.toml", space, CONFIG),
        "search": "random",
        "scheduler": "none",
        "num_trials": 12,
        "seed": 3,
        "data": "cifar10",
        "run": "run",
        "code_version": "0",
    }
    return SearchSpec.model_validate({**values, **changes})


def test_a_space_names_fields_of_the_config_by_their_last_name_or_whole() -> None:
    space = parse_space("drawn.toml", SPACE, CONFIG)
    assert list(space.fields) == [
        "optimizer.learning_rate",
        "batch_size",
        "augment.translate_px",
        "augment.flip",
    ]


@pytest.mark.parametrize("name", named_spaces())
def test_every_named_space_fits_the_recipe_of_the_examples(name: str) -> None:
    space = get_space(name, CONFIG)
    apply(CONFIG, space.sample(Random(0)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "learning_rat = {uniform = [0, 1]}",
            "no field learning_rat. Did you mean optimizer.learn",
        ),
        ("optimizer.momentun = {uniform = [0, 1]}", "Did you mean optimizer.momentum"),
        ("name = {choice = ['sgd']}", "may be optimizer.name or schedule.name"),
        ("seed = {choice = [1, 2]}", "must be the same for all trials"),
        ("validation_fraction = {uniform = [0.1, 0.5]}", "must be the same for all trials"),
        ("batch_size = 64", "goes into --set"),
        ("batch_size = {chioce = [64]}", "Did you mean choice"),
        ("batch_size = {choice = [64], uniform = [1, 2]}", "give one of these"),
        ("batch_size = {}", "names no field"),
        ("batch_size = {choice = []}", "batch_size"),
        ("batch_size = {choice = [64, 64]}", "stands there twice"),
        ("batch_size = {choice = [64, -1]}", "batch_size cannot be -1: Input should be greater"),
        ("batch_size = {uniform = [1.5, 4.5]}", "batch_size cannot be 1.5"),
        ("learning_rate = {log_uniform = [0, 1]}", "begin above 0"),
        ("learning_rate = {uniform = [1, 0.1]}", "below the second"),
        ("learning_rate = {uniform = [0.1, inf]}", "finite"),
        ("learning_rate = {uniform = [0.1]}", "list of two numbers"),
        ("batch_size = {int_uniform = [1.5, 8]}", "whole numbers"),
        ("learning_rate = {uniform = [0.1, 1], steps = 1}", "greater than or equal to 2"),
        ("learning_rate = {uniform = [0.1, 1]}\noptimizer.learning_rate = {choice = [1]}", "twice"),
        ("optimizer.name = {choice = ['sgd', 'muon']}", "other_learning_rate is needed"),
        ("learning_rate = [", "is not TOML"),
        ("", "names no field"),
    ],
)
def test_what_is_wrong_with_a_space_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=r"--space drawn\.toml") as caught:
        parse_space("drawn.toml", text, CONFIG)
    assert message in str(caught.value)


def test_a_space_that_is_not_there_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="Did you mean optimizer"):
        get_space("optimiser", CONFIG)


def test_a_random_trial_follows_from_seed_and_number() -> None:
    spec = spec_of()
    assert planned(spec) == planned(spec)
    assert planned(spec)[7] == random_parameters(spec.model_copy(update={"num_trials": 8}), 7)
    assert planned(spec) != planned(spec.model_copy(update={"seed": 4}))


def test_samples_fill_the_range_and_logarithmic_ones_each_decade_alike() -> None:
    rng = Random(0)
    log = Range(kind="log_uniform", low=1e-4, high=1e-1)
    decades = [
        sum(10.0**-k <= log.sample(rng) < 10.0 ** (1 - k) for _ in range(600)) for k in (2, 3, 4)
    ]
    assert all(150 < decade < 250 for decade in decades)
    whole = Range(kind="int_uniform", low=0, high=4)
    assert {whole.sample(rng) for _ in range(200)} == {0, 1, 2, 3, 4}


def test_a_grid_is_the_product_of_choices_and_of_evenly_spaced_numbers() -> None:
    space = parse_space(
        "grid.toml",
        "learning_rate = {log_uniform = [1e-4, 1e-1], steps = 4}\nbatch_size = {choice = [64, 99]}",
        CONFIG,
    )
    grid = space.grid()
    assert len(grid) == 8
    rates = sorted({float(str(point["optimizer.learning_rate"])) for point in grid})
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])


def test_a_grid_over_a_range_without_steps_is_refused() -> None:
    with pytest.raises(InputError, match=r"how many values of optimizer.learning_rate"):
        parse_space("drawn.toml", SPACE, CONFIG).grid()


def test_whole_numbers_of_a_grid_stand_there_once() -> None:
    grid = Range(kind="int_uniform", low=0, high=2, steps=7).grid()
    assert grid == [0, 1, 2]
    assert all(earlier < later for earlier, later in pairwise(grid))


def test_exploring_stays_within_the_space() -> None:
    space = parse_space("drawn.toml", SPACE, CONFIG)
    rng = Random(1)
    parameters = space.sample(rng)
    seen = []
    for _ in range(200):
        parameters = space.explore(parameters, rng)
        apply(CONFIG, parameters)
        assert 1e-4 <= float(str(parameters["optimizer.learning_rate"])) <= 1e-1
        seen.append(parameters["batch_size"])
    assert set(seen) == {64, 128, 256}


@pytest.mark.parametrize(
    ("space", "changes", "message"),
    [
        (SPACE, {"search": "pbt", "workers_per_trial": 2}, "one process"),
        (SPACE, {"search": "pbt", "scheduler": "asha"}, "Leave out --scheduler"),
        (SPACE, {"search": "pbt", "num_trials": 1}, "at least two"),
        ("epochs = {choice = [2, 3]}", {"search": "pbt"}, "epochs cannot change"),
        ("optimizer.name = {choice = ['sgd', 'adam']}", {"search": "pbt"}, "cannot change"),
        (SPACE, {"workers_per_trial": 2, "gpus_per_trial": 0.5}, "cannot be shared out"),
    ],
)
def test_what_does_not_go_together_is_refused(
    space: str, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_search(spec_of(space, **changes))


def test_a_search_is_the_same_after_json() -> None:
    spec = spec_of()
    assert SearchSpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_longest_trial_is_known() -> None:
    assert spec_of().max_epochs == CONFIG.epochs
    assert spec_of("epochs = {int_uniform = [2, 7]}").max_epochs == 7
