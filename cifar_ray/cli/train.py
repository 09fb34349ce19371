"""`cifar-ray train`."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from cifar_ray.cli.boundary import console
from cifar_ray.cli.connection import HERE, chosen_address, connected
from cifar_ray.cli.display import counted_workers, shown_dashboard
from cifar_ray.cli.downloads import bring
from cifar_ray.cli.job_specs import Submit
from cifar_ray.cli.options import Dashboard
from cifar_ray.cli.training_display import TrainingDisplay, show_metrics
from cifar_ray.cli.training_specs import Request, settled, spec_of_job, train_job, training_spec
from cifar_ray.errors import InputError

if TYPE_CHECKING:
    from cifar_ray.config.job import TrainJob
    from cifar_ray.config.training import TrainingSpec
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
    address = chosen_address(address)
    local = local or (workers == 1 and address is None and not dashboard)
    where = _Where(local, None if local else address, dashboard)
    settings = [*(FROM_SCRATCH if from_scratch else ()), *(set_ or ())]
    request = Request(data, str(weights) if weights else None, device, workers, settings, mlflow)
    if isinstance(context.obj, Submit):
        if recipe == REPORTS:
            raise InputError("A job trains one recipe: give its name, and not `reports`.")
        context.obj(train_job(request, recipe, from_, out))
    elif recipe == REPORTS:
        if data != "cifar10" or from_ or settings:
            raise InputError(
                "--recipe reports trains recipes as they are: give `cifar10` for DATA, and neither"
                " --from, --set nor --from-scratch."
            )
        _reproduce(request, out, where, max_minutes)
    else:
        _run(training_spec(request, recipe, from_, out), where, json_)


def run_job(job: "TrainJob") -> None:
    """Run what was submitted, as the verb does, with Ray."""
    where = _Where(local=False, address=chosen_address(None))
    _run(spec_of_job(job), where, as_json=False)


@dataclass(frozen=True, slots=True)
class _Where:
    """What trains: this process, or Ray."""

    local: bool
    address: str | None
    dashboard: bool = False


def _run(spec: "TrainingSpec", where: _Where, as_json: bool) -> None:
    from cifar_ray.training.resume import open_run

    with connected(where.address):
        spec = settled(spec, where.address)
        metrics = open_run(spec)
        if metrics is not None:
            console.print(Text(f"{spec.run} is complete already; nothing to do."))
        else:
            metrics = _train(spec, where)
    show_metrics(spec, metrics, as_json)


def _reproduce(request: Request, out: str, where: _Where, max_minutes: float | None) -> None:
    """Train the recipes of the reports, each in a folder of its own."""
    from cifar_ray.cli.reproduce import reproduce
    from cifar_ray.config.job import is_local
    from cifar_ray.storage import open_store

    runs = open_store(out).uri
    if not is_local(runs):
        raise InputError(
            f"--recipe reports puts a table and a page beside its runs: {out} is no folder."
        )

    def spec_of(name: str, run: str) -> "TrainingSpec":
        return settled(training_spec(request, name, None, run), where.address)

    with connected(where.address):
        reproduce(Path(runs), spec_of, lambda spec: _train(spec, where), max_minutes)


def _train(spec: "TrainingSpec", where: _Where) -> dict[str, Any]:
    from cifar_ray.storage import open_store
    from cifar_ray.storage.lease import hold
    from cifar_ray.training.pipeline import Watcher

    if where.address in HERE:  # elsewhere, workers find their own
        bring(spec.data)
    if where.local:
        console.print("Training in this process; --workers N or --address train with Ray.")
    else:
        console.print(Text(f"Training with Ray, {counted_workers(spec.workers)}."))
    shown = shown_dashboard(where.dashboard, where.address)
    with hold(open_store(spec.run)), shown, TrainingDisplay(spec) as display:
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
