"""`cifar-ray evaluate`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cifar_ray.cli import job_specs
from cifar_ray.cli.boundary import console
from cifar_ray.cli.options import Device
from cifar_ray.config.execution import REFERENCE, ExecutionRequest

if TYPE_CHECKING:
    from cifar_ray.config.job import EvaluateJob
    from cifar_ray.training.evaluation.evaluation import Evaluation

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray evaluate runs/first/bundle cifar10 --out evaluation

  cifar-ray evaluate runs/first runs/second my-model photos-by-class --out comparison

  cifar-ray evaluate torchvision:resnet18 torchvision:resnet50 photos-by-class --out imagenet
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate", epilog=EXAMPLES)(evaluate)


def evaluate(
    context: typer.Context,
    bundles_and_data: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE... DATA",
            help="One or more bundles, the runs that made them, or torchvision:NAME; then DATA:"
            " `cifar10` (its test images), a folder or s3:// place with a sub-folder a class,"
            " Parquet with `image` and `label`, or tar shards. Classes are matched by name.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where metrics and report go.")],
    device: Device = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "int8"],
        typer.Option(
            help="What the models compute in: float32 to compare models, `auto` to judge what"
            " `predict` does on this machine."
        ),
    ] = "float32",
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With torchvision:NAME: its weights, or a folder with resnet50.pth and the like.",
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Judge models by labelled images: metrics.json, report.html and plots, in DIR."""
    *bundles, data = bundles_and_data
    if not bundles:
        raise typer.BadParameter("Give at least one bundle, and then DATA.")
    if weights is not None and not any(map(_is_torchvisions, bundles)):
        raise typer.BadParameter("--weights goes with torchvision:NAME in the place of a bundle.")
    from cifar_ray.config.job import EvaluateJob

    job = EvaluateJob(
        bundles=tuple(bundles),
        data=data,
        destination=str(out),
        execution=REFERENCE.model_copy(update={"device": device, "precision": precision}),
    )
    if isinstance(context.obj, job_specs.Submit):
        context.obj(_with_weights(job, weights))
    else:
        _run(job, weights, json_)


def run_job(job: "EvaluateJob") -> None:
    """Run what was submitted, as the verb does."""
    _run(job, weights=None, as_json=False)


def _is_torchvisions(place: str) -> bool:
    from cifar_ray.models.torchvision_table import PREFIX

    return place.startswith(PREFIX)


def _with_weights(job: "EvaluateJob", weights: Path | None) -> "EvaluateJob":
    """Let `--weights` be part of what is uploaded."""
    if weights is None:
        return job
    from cifar_ray.models.opening import open_bundle

    bundles = tuple(
        str(open_bundle(place, weights).path) if _is_torchvisions(place) else place
        for place in job.bundles
    )
    return job.model_copy(update={"bundles": bundles})


def _run(job: "EvaluateJob", weights: Path | None, as_json: bool) -> None:
    out = Path(job.destination)
    _show(judge(job.bundles, job.data, out, job.execution, weights), out, as_json)


def judge(
    places: Sequence[str],
    data: str,
    out: Path,
    execution: ExecutionRequest = REFERENCE,
    weights: Path | None = None,
) -> "list[Evaluation]":
    """Evaluate models behind a bar for each."""
    from cifar_ray.training.evaluation.evaluate_bundles import evaluate_bundles

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    tasks: dict[str, Any] = {}

    def on_images(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bar.add_task(name, total=total)
        bar.update(tasks[name], completed=done)

    with bar:
        return evaluate_bundles(places, data, out, execution, on_images, weights)


def _show(evaluations: "list[Evaluation]", out: Path, as_json: bool) -> None:
    from cifar_ray.training.evaluation.evaluate_bundles import metrics_content

    if as_json:
        sys.stdout.write(json.dumps(metrics_content(evaluations), indent=2) + "\n")
        return
    output = Console(highlight=False)
    table = Table("", box=None, pad_edge=False)
    for item in evaluations:
        table.add_column(Text(item.name))
    rows = [item.metrics for item in evaluations]
    table.add_row("accuracy", *(f"{row['accuracy']:.2%}" for row in rows))
    intervals = (row["accuracy_interval"] for row in rows)
    table.add_row("  95 % interval", *(f"{low:.2%} to {high:.2%}" for low, high in intervals))
    for name in ("precision_macro", "recall_macro", "f1_macro"):
        table.add_row(name, *(f"{row[name]:.2%}" for row in rows))
    table.add_row("loss", *(f"{row['loss']:.4f}" for row in rows))
    table.add_row("calibration error", *(f"{row['ece']:.2%}" for row in rows))
    table.add_row("images/s", *(f"{row['images_per_second']:,.0f}" for row in rows))
    output.print(Text(f"On {evaluations[0].held_out.description}:"))
    output.print(table)
    output.print(Text(f"Report  {out / 'report.html'}"))
