"""`cifar-ray train` and `recipes`."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from cifar_ray.cli.boundary import console
from cifar_ray.cli.display import duration
from cifar_ray.cli.job_specs import Submit
from cifar_ray.config.machine import usable_cores

if TYPE_CHECKING:
    from cifar_ray.config.job import TrainJob
    from cifar_ray.config.training import TrainingSpec
    from cifar_ray.training.loop import EpochRow, Step

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray train cifar10 --recipe cnn-122k --out runs/first

  cifar-ray train cifar10 --recipe cnn-122k --out runs/two --workers 2 --set epochs=5

  cifar-ray train photos-by-class --recipe cnn-122k --out runs/mine --local
"""


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("train", epilog=EXAMPLES)(train)
    app.command("recipes", epilog="[bold]Example[/bold]\n\n  cifar-ray recipes --json")(recipes)


def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="`cifar10`, or a folder with a sub-folder a class."),
    ],
    recipe: Annotated[str, typer.Option(help="A name that `cifar-ray recipes` lists.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="The run's folder.")],
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
    json_: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Train a recipe's network, and write its bundle. Run it again to go on after a stop."""
    from cifar_ray.config.job import TrainJob
    from cifar_ray.config.recipes import get_recipe
    from cifar_ray.config.training import override

    if local and workers > 1:
        raise typer.BadParameter("--local trains in one process; leave out --workers.")
    job = TrainJob(
        data=data,
        destination=str(out),
        config=override(get_recipe(recipe), set_ or []),
        settings=tuple(set_ or ()),
        device=device,
        workers=workers,
    )
    if isinstance(context.obj, Submit):
        context.obj(job)
        return
    address = address or os.environ.get("RAY_ADDRESS")
    _run(job, local or (workers == 1 and address is None), address, json_)


def run_job(job: "TrainJob") -> None:
    """Run what was submitted, as the verb does, with Ray."""
    _run(job, local=False, address=os.environ.get("RAY_ADDRESS"), as_json=False)


def _run(job: "TrainJob", local: bool, address: str | None, as_json: bool) -> None:
    from cifar_ray.training.resume import open_run

    spec = _spec(job)
    metrics = open_run(spec)
    if metrics is not None:
        console.print(Text(f"{spec.run} is complete already; nothing to do."))
    else:
        metrics = _train(spec, local, address)
    _show(spec, metrics, as_json)


def _spec(job: "TrainJob") -> "TrainingSpec":
    """Settle what depends on the machine that drives the run."""
    from cifar_ray.config.training import TrainingSpec
    from cifar_ray.training.device import choose_device

    return TrainingSpec(
        config=job.config,
        data=job.data if job.data == "cifar10" else str(Path(job.data).expanduser().absolute()),
        run=str(Path(job.destination).expanduser().absolute()),
        device=choose_device(job.device),
        threads=max(1, usable_cores() // job.workers),
        workers=job.workers,
        settings=job.settings,
        code_version=job.code_version,
    )


def _train(spec: "TrainingSpec", local: bool, address: str | None) -> dict[str, Any]:
    from cifar_ray.training.pipeline import Watcher

    if local:
        console.print("Training in this process; --workers N or --address train with Ray.")
    else:
        console.print(Text(f"Training with Ray, {spec.workers} workers."))
    with _TrainingDisplay(spec) as display:
        watcher = Watcher(display.on_step, display.on_epoch)
        if local:
            from cifar_ray.training.loop import Ranks
            from cifar_ray.training.pipeline import train as train_here

            metrics = train_here(spec, Ranks(), watcher)
        else:
            from cifar_ray.on_ray.training import train as train_on_ray

            metrics = train_on_ray(spec, address, watcher)
    assert metrics is not None, "rank 0 returns them"
    return metrics


class _TrainingDisplay:
    """A bar an epoch: loss, images/s, time left; and a line for each epoch that is done."""

    def __init__(self, spec: "TrainingSpec") -> None:
        self.epochs = spec.config.epochs
        self.bar = Progress(
            TextColumn("{task.fields[text]}"),
            BarColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, text="reading images")
        self.seconds_an_epoch = 0.0

    def __enter__(self) -> "_TrainingDisplay":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def on_step(self, step: "Step") -> None:
        share = step.step / step.num_steps
        whole = step.seconds / share
        left = whole * (1 - share) + (self.epochs - step.epoch - 1) * (
            self.seconds_an_epoch or whole
        )
        self.bar.update(
            self.task,
            total=step.num_steps,
            completed=step.step,
            text=f"epoch {step.epoch + 1}/{self.epochs} · loss {step.loss:.3f} · "
            f"{step.images_per_second:,.0f} images/s · {duration(left)} left",
        )

    def on_epoch(self, row: "EpochRow") -> None:
        self.seconds_an_epoch = row.seconds
        self.bar.console.print(
            Text(
                f"epoch {row.epoch + 1}/{self.epochs}: loss {row.train_loss:.3f}, validation "
                f"{row.validation_accuracy:.2%} (loss {row.validation_loss:.3f}), "
                f"{row.images_per_second:,.0f} images/s, {duration(row.seconds)}"
            )
        )


def _show(spec: "TrainingSpec", metrics: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(metrics, indent=2) + "\n")
        return
    output = Console(highlight=False)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("evaluated on", f"{metrics['num_images']:,} {metrics['evaluated_on']} images")
    for name in ("accuracy", "precision_macro", "recall_macro", "f1_macro"):
        table.add_row(name, f"{metrics[name]:.2%}")
    table.add_row("loss", f"{metrics['loss']:.4f}")
    table.add_row("calibration error", f"{metrics['ece']:.2%}")
    output.print(table)
    output.print(Text(f"Bundle  {spec.run}/bundle"))
    output.print(
        Text(f"Label with it:  cifar-ray predict FOLDER --out DEST --model {spec.run}/bundle")
    )


def recipes(
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List what can be trained."""
    from cifar_ray.config.recipes import RECIPES

    rows = [_recipe_row(name) for name in RECIPES]
    if json_:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    table = Table("name", "network", "epochs", "expected accuracy", "minutes", "what it is")
    for row in rows:
        accuracy = "" if row["expected_accuracy"] is None else f"{row['expected_accuracy']:.1%}"
        minutes = "" if row["minutes"] is None else f"{row['minutes']:g}"
        table.add_row(
            row["name"], row["network"], str(row["epochs"]), accuracy, minutes, row["description"]
        )
    Console().print(table)


def _recipe_row(name: str) -> dict[str, Any]:
    from cifar_ray.config.recipes import RECIPES, get_recipe

    config = get_recipe(name)
    return {
        "name": name,
        "network": config.network,
        "epochs": config.epochs,
        "expected_accuracy": config.expected_accuracy,
        "minutes": config.minutes,
        "description": (RECIPES[name].__doc__ or "").strip(),
    }
