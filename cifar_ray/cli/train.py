"""`cifar-ray train`."""

import dataclasses
import functools
import json
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_ray import __version__
from cifar_ray.cli.boundary import console
from cifar_ray.cli.connection import HERE, connected
from cifar_ray.cli.display import shown_dashboard
from cifar_ray.cli.downloads import bring
from cifar_ray.cli.job_specs import Submit
from cifar_ray.cli.options import Dashboard
from cifar_ray.cli.training_display import TrainingDisplay
from cifar_ray.config.machine import usable_cores
from cifar_ray.errors import InputError

if TYPE_CHECKING:
    from cifar_ray.config.job import TrainJob
    from cifar_ray.config.training import TrainingConfig, TrainingSpec
    from cifar_ray.training.pipeline import Watcher

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray train cifar10 --recipe cnn-122k --out runs/first

  cifar-ray train cifar10 --recipe cnn-122k --out runs/two --workers 2 --set epochs=5

  cifar-ray train photos-by-class --recipe finetune --set network=torchvision:convnext_tiny
    --out runs/mine

  cifar-ray train --from runs/mine --out runs/again --set seed=1

  cifar-ray train cifar10 --recipe reports --out runs/reports
"""
REPORTS = "reports"
"""In the place of a recipe: all that reproduce a report."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("train", epilog=EXAMPLES)(train)


def train(
    context: typer.Context,
    out: Annotated[
        str, typer.Option(metavar="RUN", help="The run's place: a folder, or s3://BUCKET/PREFIX.")
    ],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="`cifar10`, a folder or s3:// place with a sub-folder a class, Parquet with "
            "`image` and `label` columns, or WebDataset's .tar shards.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A name that `cifar-ray recipes` lists; `reports` trains several."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN", help="Train what another run trained, again."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train together.")] = 1,
    local: Annotated[
        bool, typer.Option("--local", help="Train in this process, without Ray.")
    ] = False,
    address: Annotated[str | None, typer.Option(help="A Ray cluster's address.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")
    ] = "auto",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: change a field of the recipe.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Pretrained weights, or a folder with resnet50.pth and the like; by default "
            "torchvision's, downloaded once.",
        ),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Do without pretrained weights.")
    ] = False,
    mlflow: Annotated[
        bool,
        typer.Option("--mlflow", help="Tell MLflow, too; MLFLOW_TRACKING_URI says where it is."),
    ] = False,
    max_minutes: Annotated[
        float | None,
        typer.Option(help="With `--recipe reports`: leave out what would take longer."),
    ] = None,
    dashboard: Dashboard = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Train a recipe's network, and write its bundle. Run it again to go on after a stop."""
    from cifar_ray.config.training import FROM_SCRATCH

    if local and workers > 1:
        raise typer.BadParameter("--local trains in one process; leave out --workers.")
    if local and dashboard:
        raise InputError("--dashboard is Ray's, and --local trains without Ray: leave one out.")
    address = address or os.environ.get("RAY_ADDRESS")
    local = local or (workers == 1 and address is None and not dashboard)
    where = _Where(local, None if local else address, dashboard)
    settings = [*(FROM_SCRATCH if from_scratch else ()), *(set_ or ())]
    request = _Request(data, str(weights) if weights else None, device, workers, settings, mlflow)
    if isinstance(context.obj, Submit):
        context.obj(_job(request, recipe, from_, out))
        return
    if recipe == REPORTS:
        from cifar_ray.cli.reproduce import reproduce
        from cifar_ray.config.job import is_local

        if data != "cifar10" or from_ or settings:
            raise InputError(
                "--recipe reports trains recipes as they are: give `cifar10` for DATA, and neither"
                " --from, --set nor --from-scratch."
            )
        runs = _place(out)
        if not is_local(runs):
            raise InputError(
                f"--recipe reports puts a table and a page beside its runs: {out} is no folder."
            )

        def spec_of(name: str, run: str) -> "TrainingSpec":
            return _settled(_spec(request, name, None, run), where)

        with connected(where.address):
            reproduce(Path(runs), spec_of, lambda s: _train(s, where), max_minutes)
        return
    _run(_spec(request, recipe, from_, out), where, json_)


def run_job(job: "TrainJob") -> None:
    """Run what was submitted, as the verb does, with Ray."""
    request = _Request(
        job.data, job.weights, job.device, job.workers, list(job.settings), job.mlflow
    )
    spec = _spec_of_config(request, job.config, _place(job.destination))
    _run(spec, _Where(local=False, address=os.environ.get("RAY_ADDRESS")), as_json=False)


@dataclass(frozen=True, slots=True)
class _Where:
    """What trains: this process, or Ray."""

    local: bool
    address: str | None
    dashboard: bool = False


def _run(spec: "TrainingSpec", where: _Where, as_json: bool) -> None:
    from cifar_ray.training.resume import open_run

    with connected(where.address):
        spec = _settled(spec, where)
        metrics = open_run(spec)
        if metrics is not None:
            console.print(Text(f"{spec.run} is complete already; nothing to do."))
        else:
            metrics = _train(spec, where)
    _show(spec, metrics, as_json)


@dataclass(frozen=True, slots=True)
class _Request:
    """What the command line says of any run."""

    data: str | None
    weights: str | None
    device: Literal["auto", "cpu", "cuda"]
    workers: int
    settings: list[str]
    mlflow: bool


def _spec(request: _Request, recipe: str | None, from_: str | None, out: str) -> "TrainingSpec":
    """Return the run of a recipe, or of another run."""
    asked, config = _asked(request, recipe, from_)
    return _spec_of_config(asked, config, _place(out))


def _asked(
    request: _Request, recipe: str | None, from_: str | None
) -> "tuple[_Request, TrainingConfig]":
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
    asked = dataclasses.replace(
        request,
        data=request.data or there.data,
        weights=request.weights or there.weights,
        settings=[*there.settings, *request.settings],
    )
    return asked, override(there.config, request.settings)


def _job(request: _Request, recipe: str | None, from_: str | None, out: str) -> "TrainJob":
    """Return what travels to a cluster, which settles the rest by its own machines.

    Another run is read here: its config travels, and nothing else of it.
    """
    from cifar_ray.config.job import TrainJob

    if recipe == REPORTS:
        raise InputError("A job trains one recipe: give its name, and not `reports`.")
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


def _spec_of_config(request: _Request, config: "TrainingConfig", run: str) -> "TrainingSpec":
    """Settle what depends on the machine that drives the run, but for the device."""
    from cifar_ray.config.training import TrainingSpec

    data, weights = _data(request), request.weights
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


def _settled(spec: "TrainingSpec", where: _Where) -> "TrainingSpec":
    """Settle the device, by the machines that train."""
    if where.address in HERE:
        from cifar_ray.training.device import choose_device

        device = choose_device(spec.device)
    else:
        from cifar_ray.on_ray.placing import training_device

        device = training_device(where.address, spec.device, spec.workers)
    return spec.model_copy(update={"device": device})


def _place(uri: str) -> str:
    """Return a place in one spelling, whatever the user's was."""
    from cifar_ray.storage import open_store

    return open_store(uri).uri


def _data(request: _Request) -> str:
    if request.data is None:
        raise InputError("DATA is missing: give `cifar10`, a folder, Parquet or tar shards.")
    return request.data


def _train(spec: "TrainingSpec", where: _Where) -> dict[str, Any]:
    from cifar_ray.training.pipeline import Watcher

    if where.address in HERE:  # elsewhere, workers find their own
        bring(spec.data)
    if where.local:
        console.print("Training in this process; --workers N or --address train with Ray.")
    else:
        console.print(Text(f"Training with Ray, {spec.workers} workers."))
    shown = shown_dashboard(where.dashboard, where.address)
    with shown, TrainingDisplay(spec) as display:
        watcher = Watcher(display.on_step, display.on_epoch)
        train_there = functools.partial(_train_there, spec, where)
        if not spec.mlflow:
            return train_there(watcher)
        from cifar_ray.training.tracking import tracked

        return tracked(spec, watcher, train_there, lambda fault: console.print(Text(fault)))


def _train_there(spec: "TrainingSpec", where: _Where, watcher: "Watcher") -> dict[str, Any]:
    """Train in this process or with Ray."""
    if not where.local:
        from cifar_ray.on_ray.training import train as train_on_ray

        return train_on_ray(spec, where.address, watcher)
    from cifar_ray.training.loop import Ranks
    from cifar_ray.training.pipeline import train as train_here

    metrics = train_here(spec, Ranks(), watcher)
    assert metrics is not None, "rank 0 returns them"
    return metrics


def _show(spec: "TrainingSpec", metrics: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(metrics, indent=2) + "\n")
        return
    output = Console(highlight=False)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("evaluated on", f"{metrics['num_images']:,} {metrics['evaluated_on']} images")
    for name in ("accuracy", "precision_macro", "recall_macro", "f1_macro"):
        table.add_row(name, f"{metrics[name]:.2%}")
    if "accuracy_with_views" in metrics:
        table.add_row("accuracy over views", f"{metrics['accuracy_with_views']:.2%}")
    table.add_row("loss", f"{metrics['loss']:.4f}")
    table.add_row("calibration error", f"{metrics['ece']:.2%}")
    if copies := metrics.get("duplicates", {}).get("copies"):
        left_out = metrics["duplicates"]["left_out"]
        table.add_row("equal images", f"{copies:,}, {left_out:,} left out to be in one split alone")
    output.print(table)
    output.print(Text(f"Bundle  {spec.run}/bundle"))
    output.print(
        Text(f"Label with it:  cifar-ray predict FOLDER --out DEST --model {spec.run}/bundle")
    )
