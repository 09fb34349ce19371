"""Between the command line of `train` and the spec of a run, or of the job that trains it."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cifar_ray import __version__
from cifar_ray.cli.connection import HERE
from cifar_ray.config.machine import usable_cores
from cifar_ray.errors import InputError

if TYPE_CHECKING:
    from cifar_ray.config.job import TrainJob
    from cifar_ray.config.training import TrainingConfig, TrainingSpec


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line says of any run."""

    data: str | None
    weights: str | None
    device: Literal["auto", "cpu", "cuda"]
    workers: int
    settings: list[str]
    mlflow: bool


def training_spec(
    request: Request, recipe: str | None, from_: str | None, out: str
) -> "TrainingSpec":
    """Return the run of a recipe, or of another run; `settled` settles its device."""
    asked, config = _asked(request, recipe, from_)
    return _spec(asked, config, out)


def train_job(request: Request, recipe: str | None, from_: str | None, out: str) -> "TrainJob":
    """Return what travels to a cluster, which settles the rest by its own machines.

    Another run is read here: its config travels, and nothing else of it.
    """
    from cifar_ray.config.job import TrainJob

    asked, config = _asked(request, recipe, from_)
    return TrainJob(
        data=_data(asked),
        destination=out,
        config=config,
        settings=tuple(asked.settings),
        weights=asked.weights,
        device=asked.device,
        workers=asked.workers,
        mlflow=asked.mlflow,
    )


def spec_of_job(job: "TrainJob") -> "TrainingSpec":
    """Return the run that a job trains; `settled` settles its device."""
    request = Request(
        job.data, job.weights, job.device, job.workers, list(job.settings), job.mlflow
    )
    return _spec(request, job.config, job.destination)


def settled(spec: "TrainingSpec", address: str | None) -> "TrainingSpec":
    """Settle the device, by the machines that train."""
    if address in HERE:
        from cifar_ray.training.device import choose_device

        device = choose_device(spec.device)
    else:
        from cifar_ray.on_ray.placing import training_device

        device = training_device(address, spec.device, spec.workers)
    return spec.model_copy(update={"device": device})


def _asked(
    request: Request, recipe: str | None, from_: str | None
) -> "tuple[Request, TrainingConfig]":
    """Return what a recipe, or another run, makes of the command line, and the config."""
    from cifar_ray.config.training import override

    if (recipe is None) == (from_ is None):
        raise InputError("Give one of --recipe NAME and --from RUN.")
    if from_ is None:
        from cifar_ray.config.recipes import get_recipe

        assert recipe is not None, "checked above"
        return request, override(get_recipe(recipe), request.settings)
    from cifar_ray.training.resume import read_spec

    there = read_spec(_place(from_))
    asked = replace(
        request,
        data=request.data or there.data,
        weights=request.weights or there.weights,
        settings=[*there.settings, *request.settings],
    )
    return asked, override(there.config, request.settings)


def _spec(request: Request, config: "TrainingConfig", out: str) -> "TrainingSpec":
    """Settle what depends on the machine that drives the run, but for the device."""
    from cifar_ray.config.training import TrainingSpec

    run, data, weights = _place(out), _data(request), request.weights
    if request.mlflow and find_spec("mlflow") is None:
        raise InputError("--mlflow needs MLflow. Install it: pip install 'cifar-ray[mlflow]'.")
    return TrainingSpec(
        config=config,
        data=data if data == "cifar10" else _place(data),
        run=run,
        weights=str(Path(weights).expanduser().absolute()) if weights else None,
        device=request.device,
        threads=max(1, usable_cores() // request.workers),
        workers=request.workers,
        settings=tuple(request.settings),
        mlflow=request.mlflow,
        code_version=__version__,
    )


def _data(request: Request) -> str:
    if request.data is None:
        raise InputError("DATA is missing: give `cifar10`, a folder, Parquet or tar shards.")
    return request.data


def _place(uri: str) -> str:
    """Return a place in one spelling, whatever the user's was."""
    from cifar_ray.storage import open_store

    return open_store(uri).uri
