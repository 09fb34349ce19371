"""`cifar-ray tune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from cifar_ray.cli.boundary import console
from cifar_ray.cli.connection import HERE, chosen_address, connected
from cifar_ray.cli.display import duration, shown_dashboard
from cifar_ray.cli.downloads import bring
from cifar_ray.cli.job_specs import Submit
from cifar_ray.cli.options import Dashboard
from cifar_ray.cli.search_display import SearchDisplay, show_best, show_planned, why_nothing
from cifar_ray.cli.search_specs import Request, new_search, placed, resuming_command
from cifar_ray.config.machine import usable_cores
from cifar_ray.errors import CifarRayError, InputError

if TYPE_CHECKING:
    from cifar_ray.config.job import TuneJob
    from cifar_ray.config.search import SearchSpec
    from cifar_ray.config.training import TrainingSpec
    from cifar_ray.training.loop import EpochRow
    from cifar_ray.training.search.record import Records, TrialRecord

WITH_RESUME = ("resume", "gpus_per_trial", "refit", "dry_run", "address", "dashboard", "json_")
EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray tune cifar10 --recipe cnn-122k --space optimizer --out runs/search --max-epochs 60
    --refit

  cifar-ray tune cifar10 --recipe cnn-122k --space my-space.toml --search grid --scheduler none
    --out runs/grid

  cifar-ray tune --resume runs/search
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("tune", epilog=EXAMPLES)(tune)


def tune(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="As for `train`."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="What trials change; a name that `recipes` lists.")
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(metavar="SPACE", help="A TOML file, or learning-rate-4x4, optimizer, whole."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="The search's folder.")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with the search in this folder.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="How many; by default 16, or the whole grid.")
    ] = None,
    search: Annotated[
        Literal["random", "grid", "tpe", "pbt"], typer.Option(help="How trials are found.")
    ] = "tpe",
    scheduler: Annotated[
        Literal["asha", "median", "none"] | None,
        typer.Option(help="Which trials are stopped early; asha, but none for grid and pbt."),
    ] = None,
    max_epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Of all trials together, also over several starts of the search."),
    ] = None,
    workers_per_trial: Annotated[
        int, typer.Option(min=1, help="Processes that train one trial together.")
    ] = 1,
    gpus_per_trial: Annotated[
        float | None, typer.Option(min=0, help="For example 0.25: four trials on one GPU.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: the same for all trials.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the search; training has its own.")] = 0,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit",
            help="Train the best one again, and write its bundle; with pbt, of its own weights.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print ten of the configs, and do nothing.")
    ] = False,
    address: Annotated[str | None, typer.Option(help="A Ray cluster's address.")] = None,
    dashboard: Dashboard = False,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Search for a recipe's best hyperparameters, by validation images alone."""
    from cifar_ray.config.job import TuneJob
    from cifar_ray.config.search import check_search

    submit = context.obj if isinstance(context.obj, Submit) else None
    if resume is not None:
        if submit is not None:
            raise InputError("A job goes on by the command that began it: leave out --resume.")
        _refuse_beside_resume(context)
        from cifar_ray.training.search.opening import read_search

        spec = read_search(resume)
        if gpus_per_trial is not None:
            spec = spec.model_copy(update={"gpus_per_trial": gpus_per_trial})
    else:
        if data is None or recipe is None or space is None or (out is None and not dry_run):
            raise typer.BadParameter("give DATA, --recipe, --space and --out; or --resume RUN.")
        spec = new_search(
            Request(
                data=data,
                recipe=recipe,
                space=space,
                run=str(out or ""),
                settings=set_ or [],
                search=search,
                scheduler=scheduler,
                trials=trials,
                max_epochs=max_epochs,
                workers_per_trial=workers_per_trial,
                gpus_per_trial=gpus_per_trial,
                seed=seed,
            )
        )
    # Before data are downloaded, or anything is sent.
    check_search(spec)
    if dry_run:
        show_planned(spec, json_)
    elif submit is not None:
        submit(TuneJob(search=spec, refit=refit))
    else:
        _run(placed(spec), refit, address, dashboard, json_)


def _refuse_beside_resume(context: typer.Context) -> None:
    """Refuse what would be ignored: the search's folder says it."""
    given = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        told = source is not None and source.name == "COMMANDLINE"
        if told and parameter.name not in WITH_RESUME:
            name = parameter.opts[0]
            given.append(name if name.startswith("-") else name.upper())
    if given:
        raise InputError(
            f"--resume takes all else from the search's folder: leave out {', '.join(given)}."
        )


def run_job(job: "TuneJob") -> None:
    """Search as was submitted, as the verb does."""
    _run(placed(job.search), job.refit, None, dashboard=False, as_json=False)


def _run(
    spec: "SearchSpec", refit: bool, address: str | None, dashboard: bool, as_json: bool
) -> None:
    resuming = resuming_command(spec, refit, address)
    address = chosen_address(address)
    with connected(address):
        records = _search(spec, address, dashboard, resuming)
        best = records.best()
        if best is None:
            raise CifarRayError(why_nothing(records))
        metrics = _refit(records, best, address) if refit else None
    show_best(records, best, metrics, as_json)


def _search(spec: "SearchSpec", address: str | None, dashboard: bool, resuming: str) -> "Records":
    from cifar_ray.on_ray.tuning.search import search
    from cifar_ray.runs import SearchRun
    from cifar_ray.training.data.sources import check_data
    from cifar_ray.training.search.opening import hold_search, open_search
    from cifar_ray.training.search.record import Records
    from cifar_ray.training.search.report import write_report

    ended = sum(trial.has_ended for trial in Records.load(spec).trials.values())
    if ended < spec.num_trials:
        # Before a folder is made, or Ray is started.
        check_data(spec.data)
        if address in HERE:  # elsewhere, trials find their own
            bring(spec.data)
    open_search(spec)
    with hold_search(SearchRun(Path(spec.run))):
        records = Records.load(spec)
        if ended:
            console.print(Text(f"{ended} of {spec.num_trials} trials have ended before."))
        shown = shown_dashboard(dashboard and ended < spec.num_trials, address)
        try:
            with shown, SearchDisplay(console, records) as display:
                search(records, address, display.update)
        except (KeyboardInterrupt, CifarRayError):
            console.print(Text(f"Go on with:  {resuming}"))
            raise
        finally:
            records.write_parquet()
        write_report(records)
    return records


def _refit(records: "Records", best: "TrialRecord", address: str | None) -> dict[str, Any]:
    """Train the best trial again: with a cluster on a node of it, for its head may do no work."""
    from cifar_ray.training.pipeline import Watcher
    from cifar_ray.training.search.refit import refit

    if best.exploits:
        because = "other trials' epochs are in its weights, which no training repeats"
        console.print(Text(f"The bundle is trial {best.number} as it is: {because}."))
    else:
        console.print(Text(f"Training trial {best.number} again in full."))

    def on_epoch(row: "EpochRow") -> None:
        line = f"epoch {row.epoch + 1}: validation {row.validation_accuracy:.2%}"
        console.print(Text(f"{line}, {duration(row.seconds)}"))

    watcher = Watcher(on_epoch=on_epoch)
    if address in HERE or best.exploits:
        from cifar_ray.training.device import choose_device

        bring(records.spec.data)
        return refit(records, best, choose_device("auto"), usable_cores(), watcher)
    from cifar_ray.on_ray.placing import training_device
    from cifar_ray.on_ray.training import train as train_on_ray

    def train_there(spec: "TrainingSpec", watcher: Watcher) -> dict[str, Any]:
        return train_on_ray(spec, address, watcher)

    device = training_device(address, "auto", workers=1)
    return refit(records, best, device, usable_cores(), watcher, train_there)
