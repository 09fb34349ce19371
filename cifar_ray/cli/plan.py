"""`cifar-ray plan`: what a labelling run will take, before it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_ray.cli.boundary import console
from cifar_ray.cli.connection import HERE, chosen_address
from cifar_ray.cli.display import duration
from cifar_ray.cli.options import BatchSize, Device, ImagesPerShard, Model, Precision, Root, Weights
from cifar_ray.config.machine import usable_cores

if TYPE_CHECKING:
    from cifar_ray.prediction.forecasting.forecast import Estimate, Forecast
    from cifar_ray.prediction.forecasting.planning import Question
    from cifar_ray.prediction.plan import Request

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray plan photos

  cifar-ray plan photos --out labels --model torchvision:resnet50

  cifar-ray plan s3://bucket/photos --workers 200 --deadline 2 --prices prices.toml

[bold]A price table[/bold]: currency = "USD", cpu_hour, gpu_hour, get_1000, put_1000 (listings too),
transfer_gb; what is left out costs nothing.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("plan", epilog=EXAMPLES)(plan)


def plan(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="As for `predict`.")],
    out: Annotated[
        str | None,
        typer.Option(metavar="DEST", help="Keep the plan there; the receipt will compare."),
    ] = None,
    model: Model = None,
    weights: Weights = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="That the run will have. Default: as where it is measured."),
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(min=0, metavar="HOURS", help="How many workers meet it?")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A price table, as TOML.")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    images_per_shard: ImagesPerShard = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Keys that match this pattern, and no others.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out keys that match this pattern.")
    ] = None,
    root: Root = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster's address: measure on a node of it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Tell time, cost and output of a run, by labelling 200 images of all sizes.

    Nothing is written but the plan itself, and that only with --out.
    """
    from cifar_ray.config.execution import ExecutionRequest
    from cifar_ray.config.labelling import LabellingConfig
    from cifar_ray.config.prices import read_prices
    from cifar_ray.prediction.forecasting.planning import Question
    from cifar_ray.prediction.plan import Request

    config = LabellingConfig(
        images_per_shard=images_per_shard,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
    )
    request = Request(
        source=source,
        destination=out or "",
        model=model,
        weights=weights,
        config=config,
        execution=ExecutionRequest(device=device, precision=precision, batch_size=batch_size),
        root=root,
    )
    table = read_prices(prices) if prices else None
    question = Question(request, _arguments(request), workers, table, deadline, seed)
    found = _forecast(question, chosen_address(address))
    if json_:
        sys.stdout.write(found.model_dump_json(indent=2) + "\n")
    else:
        _show(found)


def _forecast(question: "Question", address: str | None) -> "Forecast":
    """Measure here, or on a node of a cluster."""

    def tell(text: str) -> None:
        console.print(Text(text))

    if address in HERE:
        from cifar_ray.prediction.forecasting.planning import make_forecast

        return make_forecast(question, usable_cores(), tell)
    from cifar_ray.on_ray.planning import forecast_on_cluster

    return forecast_on_cluster(address, question, tell)


def _arguments(request: "Request") -> tuple[str, ...]:
    """Return what a command is given to label that, without what a trial sets itself."""
    execution, config = request.execution, request.config
    given = {
        "--model": request.model,
        "--weights": request.weights,
        "--root": request.root,
        "--batch-size": execution.batch_size,
        "--device": execution.device,
        "--precision": execution.precision,
    }
    options = [part for name, value in given.items() if value for part in (name, str(value))]
    options += [part for pattern in config.include for part in ("--include", pattern)]
    options += [part for pattern in config.exclude for part in ("--exclude", pattern)]
    return ("predict", request.source, *options)


def _show(found: "Forecast") -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("found", f"{found.found:,}")
    for kind, number in found.skipped.items():
        table.add_row(Text(f"  skipped {kind}"), f"{number:,}")
    table.add_row("to label", f"{found.listed:,} images")
    table.add_row("to read", _interval(found.read_bytes.times(1e-6), "MB"))
    written = _interval(found.written_bytes.times(1e-6), "MB")
    table.add_row("to write", f"{found.parts:,} parts, {written}")
    if found.requests:
        kinds = ", ".join(f"{number:,} {kind.upper()}" for kind, number in found.requests.items())
        table.add_row("requests", kinds)
    table.add_row("CPU-hours", _interval(found.cpu_hours, ""))
    for stage, seconds in found.stage_cpu_seconds.items():
        table.add_row(f"  {stage}", f"{seconds:,.2f} s")
    if found.gpu_hours is not None:
        table.add_row("GPU-hours", _interval(found.gpu_hours, ""))
    table.add_row("time", _time(found))
    if found.money is not None:
        table.add_row("money", _interval(found.money, found.currency or ""))
    if found.deadline_hours is not None:
        table.add_row(f"in {found.deadline_hours:g} hours", _workers(found))
    output = Console(highlight=False)
    output.print(table)
    output.print(
        Text(
            f"In brackets: 90 % intervals, from {found.sample} images that "
            f"{found.measured_side_by_side} workers labelled {found.rounds} times over.",
            style="dim",
        )
    )


def _time(found: "Forecast") -> str:
    bounds = found.hours.times(3600)
    between = f"{duration(bounds.low)} to {duration(bounds.high)}"
    return f"{duration(bounds.expected)} ({between}) with {found.workers} workers"


def _workers(found: "Forecast") -> str:
    if found.workers_for_deadline is None:
        return "cannot be met: start, end and the largest part alone take longer"
    return f"{found.workers_for_deadline:,} workers"


def _interval(estimate: "Estimate", unit: str) -> str:
    text = f"{estimate.expected:,.3g} {unit}".rstrip()
    if estimate.low == estimate.high:
        return text
    return f"{text} ({estimate.low:,.3g} to {estimate.high:,.3g})"
