import pytest

from cifar_ray.cli.engine_choice import RAY_REPAYS_CORES, choose_kind
from cifar_ray.config.labelling import RunOptions
from cifar_ray.errors import InputError


@pytest.mark.parametrize(
    ("options", "cores", "chosen"),
    [
        ({}, RAY_REPAYS_CORES - 1, ("local", "31 cores do not repay the start of Ray")),
        ({}, RAY_REPAYS_CORES, ("ray", "32 cores")),
        ({"address": "local"}, 2, ("ray", "address local")),
        ({"address": "ray://a:1", "dashboard": True}, 2, ("ray", "for its dashboard")),
        ({"engine": "local", "address": "ray://a:1"}, 64, ("local", "as asked")),
        ({"engine": "ray"}, 2, ("ray", "as asked")),
    ],
)
def test_the_engine_is_the_one_asked_for_or_ray_where_it_repays_its_start(
    options: dict[str, object], cores: int, chosen: tuple[str, str]
) -> None:
    assert choose_kind(RunOptions.model_validate(options), cores) == chosen


def test_the_local_engine_has_no_dashboard() -> None:
    with pytest.raises(InputError, match="leave one out"):
        choose_kind(RunOptions(engine="local", dashboard=True), 2)
