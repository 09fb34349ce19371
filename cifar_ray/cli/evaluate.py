"""`cifar-ray evaluate`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cifar_ray.cli.boundary import console

if TYPE_CHECKING:
    from cifar_ray.training.evaluation import Evaluation

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray evaluate runs/first/bundle cifar10 --out evaluation

  cifar-ray evaluate runs/first runs/second my-model photos-by-class --out comparison
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluate", epilog=EXAMPLES)(evaluate)


def evaluate(
    bundles_and_data: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE... DATA",
            help="One or more bundles, or the runs that made them; then DATA: `cifar10` (its test"
            " images), a folder with a sub-folder a class, or a .parquet file with `image` and"
            " `label`.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where metrics and report go.")],
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")
    ] = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Judge models by labelled images: metrics.json, report.html and plots, in DIR."""
    *bundles, data = bundles_and_data
    if not bundles:
        raise typer.BadParameter("Give at least one bundle, and then DATA.")
    from cifar_ray.training.evaluate_bundles import evaluate_bundles

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
        evaluations = evaluate_bundles(
            [Path(path) for path in bundles], data, out, device, on_images
        )
    _show(evaluations, out, json_)


def _show(evaluations: "list[Evaluation]", out: Path, as_json: bool) -> None:
    from cifar_ray.training.evaluate_bundles import metrics_content

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
