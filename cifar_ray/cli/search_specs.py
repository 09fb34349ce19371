"""Between the command line of `tune` and the spec of a search."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_ray import __version__
from cifar_ray.errors import InputError, printable

if TYPE_CHECKING:
    from cifar_ray.config.search import SchedulerName, SearchName, SearchSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line says of a new search; None is left to us."""

    data: str
    recipe: str
    space: str
    run: str
    settings: list[str]
    search: "SearchName"
    scheduler: "SchedulerName | None"
    trials: int | None
    max_epochs: int | None
    workers_per_trial: int
    gpus_per_trial: float | None
    seed: int


def new_search(request: Request) -> "SearchSpec":
    """Return the search that is asked for, with its places as the user spells them."""
    from cifar_ray.config.recipes import get_recipe
    from cifar_ray.config.search import DEFAULT_TRIALS, SearchSpec
    from cifar_ray.config.spaces import get_space
    from cifar_ray.config.training import override

    config = override(get_recipe(request.recipe), request.settings)
    space, trials = get_space(request.space, config), request.trials
    if request.search == "grid":
        points = len(space.grid())
        if trials not in (None, points):
            raise InputError(f"--trials {trials}: the grid has {points} points. Leave it out.")
        trials = points
    return SearchSpec(
        config=config,
        space=space,
        search=request.search,
        scheduler=request.scheduler or ("none" if request.search in ("grid", "pbt") else "asha"),
        num_trials=trials or DEFAULT_TRIALS,
        epoch_budget=request.max_epochs,
        seed=request.seed,
        data=request.data,
        run=request.run,
        workers_per_trial=request.workers_per_trial,
        gpus_per_trial=request.gpus_per_trial,
        settings=tuple(request.settings),
        code_version=__version__,
    )


def placed(spec: "SearchSpec") -> "SearchSpec":
    """Return the spec with places as this machine finds them from any folder."""
    from cifar_ray.storage import open_store

    places = {"run": str(Path(spec.run).expanduser().absolute())}
    if spec.data != "cifar10":
        places["data"] = open_store(spec.data).uri
    return spec.model_copy(update=places)


def resuming_command(spec: "SearchSpec", refit: bool, address: str | None) -> str:
    """Return the command that goes on with the search, to the same end."""
    words = ["cifar-ray", "tune", "--resume", spec.run]
    if spec.gpus_per_trial is not None:
        words += ["--gpus-per-trial", f"{spec.gpus_per_trial:g}"]
    if refit:
        words.append("--refit")
    if address is not None:
        words += ["--address", address]
    return printable(shlex.join(words))
