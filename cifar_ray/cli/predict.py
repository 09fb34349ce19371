"""`cifar-ray predict`: label a store."""

import functools
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_ray.cli import job_specs
from cifar_ray.cli.boundary import console
from cifar_ray.cli.connection import HERE, connected
from cifar_ray.cli.display import LabellingDisplay, duration, shown_dashboard
from cifar_ray.cli.options import (
    BatchSize,
    Dashboard,
    Device,
    ImagesPerShard,
    Model,
    Precision,
    Root,
    Weights,
)
from cifar_ray.config.machine import usable_cores
from cifar_ray.errors import InputError

if TYPE_CHECKING:
    from cifar_ray.config.job import PredictJob
    from cifar_ray.config.labelling import LabellingConfig, RunOptions
    from cifar_ray.prediction.engine import Engine
    from cifar_ray.prediction.forecast import Compared
    from cifar_ray.prediction.history import Reason
    from cifar_ray.prediction.lease import Lease
    from cifar_ray.prediction.plan import Plan, Request, Resolve
    from cifar_ray.prediction.receipt import Receipt

RAY_REPAYS_CORES = 32
"""From so many cores on, one driver that starts processes is no longer the better engine."""

PROFILE_BAR_WIDTH = 40

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray predict photos --out labels

  cifar-ray predict photos --out labels --model torchvision:resnet50

  cifar-ray predict photos --out labels --model runs/mine/bundle --top-k 3

  cifar-ray predict photos --out trial --sample 1000 --dry-run

  cifar-ray predict photos.csv --root photos --columns camera,taken --out labels

  cifar-ray predict 'shards/*.tar' --out labels
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("predict", epilog=EXAMPLES)(predict)


def predict(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of images, or s3://BUCKET/PREFIX; a manifest (.parquet, .csv, .jsonl "
            "with a column uri); a .tar, .zip or .parquet with images in it, or a folder or a "
            "quoted pattern of those. Files of these kinds may lie in a bucket, too.",
        ),
    ],
    out: Annotated[str, typer.Option(metavar="DEST", help="Where results go: a new folder.")],
    model: Model = None,
    weights: Weights = None,
    engine: Annotated[
        Literal["auto", "local", "ray"], typer.Option(help="What runs the workers.")
    ] = "auto",
    local: Annotated[bool, typer.Option("--local", help="Short for --engine local.")] = False,
    address: Annotated[str | None, typer.Option(help="A Ray cluster's address.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    images_per_shard: ImagesPerShard = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Label the first N images only.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Label N images, drawn by --seed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of --sample.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and how long it takes.")
    ] = False,
    top_k: Annotated[int, typer.Option(min=1, help="Labels with scores a row.")] = 5,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Keep the scores of all classes.")
    ] = False,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Keep each image's feature vector.")
    ] = False,
    include: Annotated[
        list[str] | None, typer.Option(help="Label keys that match this pattern, and no others.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out keys that match this pattern.")
    ] = None,
    root: Root = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Further columns of a manifest or .parquet, for the rows too."
        ),
    ] = None,
    max_failure_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Stop with code 3 above this share of failures.")
    ] = 0.05,
    store_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a store that fails.")
    ] = 300.0,
    decode_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that decoding one image may take.")
    ] = 60.0,
    decode_memory: Annotated[
        int, typer.Option(min=64, help="MiB that decoding one image may take.")
    ] = 6144,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Label the failed images of a run again.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Label what is new or changed since the last run.")
    ] = False,
    source_moved: Annotated[
        bool,
        typer.Option("--source-moved", help="Go on although the same images lie elsewhere now."),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the run that DEST holds, and start over.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dashboard: Dashboard = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say where the time went, stage by stage.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the receipt as JSON.")] = False,
) -> None:
    """Label every image of a store, into Parquet. Run it again to go on after a stop."""
    # Imported here, as all that is heavy: `--help` is to answer at once.
    from cifar_ray.config.execution import ExecutionRequest
    from cifar_ray.config.labelling import RunOptions
    from cifar_ray.prediction.plan import Request

    options = RunOptions(
        engine="local" if local else engine,
        address=address or os.environ.get("RAY_ADDRESS"),
        workers=workers,
        max_failure_rate=max_failure_rate,
        store_timeout_s=store_timeout,
        dashboard=dashboard,
    )
    config = _config(
        top_k=top_k,
        probabilities=probabilities,
        embeddings=embeddings,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        limit=limit,
        sample=sample,
        sample_seed=seed,
        images_per_shard=images_per_shard,
        decode_timeout_s=decode_timeout,
        decode_memory_mb=decode_memory,
        columns=tuple(name.strip() for name in columns.split(",")) if columns else (),
    )
    if retry_failed and update:
        raise InputError("Give --retry-failed or --update; one after the other.")
    if dry_run and (retry_failed or update):
        raise InputError("--dry-run does not look at what --retry-failed or --update would do.")
    if fresh and not yes and not dry_run:
        _confirm_fresh(out)
    request = Request(
        source=source,
        destination=out,
        model=model,
        weights=weights,
        config=config,
        execution=ExecutionRequest(device=device, precision=precision, batch_size=batch_size),
        fresh=fresh,
        source_moved=source_moved,
        root=root,
    )
    if dry_run:
        _show_dry_run(request, options, json_)
        return
    again: Reason | None = "retry-failed" if retry_failed else "update" if update else None
    if isinstance(context.obj, job_specs.Submit):
        context.obj(job_specs.predict_job(request, options, again))
    else:
        _run(request, options, again, profile, json_)


def run_job(job: "PredictJob") -> None:
    """Run what was submitted, as the verb does."""
    options = job.options.model_copy(update={"address": os.environ.get("RAY_ADDRESS")})
    _run(job_specs.request(job), options, job.again, profile=False, as_json=False)


def _confirm_fresh(out: str) -> None:
    if not sys.stdin.isatty():
        raise InputError(
            f"--fresh deletes the run in {out}, and there is no terminal to ask at. Give --yes too."
        )
    if not typer.confirm(f"Delete the run in {out}?"):
        raise InputError(
            "Nothing is deleted. Leave --fresh out to go on with the run, or give another --out."
        )


def _config(**values: Any) -> "LabellingConfig":
    from cifar_ray.config.labelling import LabellingConfig

    if values["limit"] is not None and values["sample"] is not None:
        raise InputError("Give --limit (the first N) or --sample (N drawn by seed), not both.")
    return LabellingConfig(**values)


def _run(
    request: "Request",
    options: "RunOptions",
    again: "Reason | None",
    profile: bool,
    as_json: bool,
) -> None:
    from cifar_ray.prediction.lease import hold
    from cifar_ray.prediction.plan import prepare, settle

    prepared = prepare(request)
    address = None if options.engine == "local" else options.address
    with hold(prepared.store) as lease, connected(address):
        _label(settle(prepared, _resolve(address)), options, lease, again, profile, as_json)


def _resolve(address: str | None) -> "Resolve":
    """Return what decides how to compute: this machine, or a node of the cluster."""
    if address in HERE:
        from cifar_ray.models.backends import resolve_execution

        return resolve_execution
    from cifar_ray.on_ray.placing import resolve_on_cluster

    return functools.partial(resolve_on_cluster, address, lambda text: console.print(Text(text)))


def _label(
    plan: "Plan",
    options: "RunOptions",
    lease: "Lease",
    again: "Reason | None",
    profile: bool,
    as_json: bool,
) -> None:
    from cifar_ray.prediction.pipeline import label, refuse_failures, sealed_receipt
    from cifar_ray.prediction.renewal import renew

    receipt = sealed_receipt(plan)
    if receipt is not None and again is None:
        console.print(Text(f"{plan.store.uri} is complete already; nothing to do."))
        _show_receipt(plan, receipt, as_json)
        refuse_failures(receipt, options.max_failure_rate)
        return
    console.print(Text(_model_line(plan)))
    for warning in (*plan.record.warnings, *_cache_warning(plan)):
        console.print(Text(f"Warning: {warning}", style="yellow"))
    engine, why = _engine(plan, options)
    console.print(Text(why))
    if plan.resumed:
        console.print("Going on with the run in DEST.")
    stages: dict[str, float] = {}

    def run() -> "Receipt":
        shown = shown_dashboard(options.dashboard, options.address)
        with shown, LabellingDisplay(console).live() as show:

            def update(progress: Any) -> None:
                lease.check()
                stages.update(progress.stage_seconds)
                show(progress)

            return label(plan, engine, options.max_failure_rate, update, lease.confirm)

    receipt = run() if again is None else renew(plan, again, run, console.print, lease.confirm)
    _show_receipt(plan, receipt, as_json)
    if profile:
        _show_stages(stages)


def _model_line(plan: "Plan") -> str:
    spec = plan.bundle.spec
    names = ", ".join(spec.labels[:10]) + (" …" if len(spec.labels) > 10 else "")
    execution = plan.record.execution
    return (
        f"Model {plan.bundle.id}: {len(spec.labels)} classes ({names}), trained on "
        f"{spec.trained_on.dataset}; {execution.backend} {execution.precision} on "
        f"{execution.device}, batches of {execution.batch_size}."
    )


def _cache_warning(plan: "Plan") -> Iterator[str]:
    from cifar_ray.models.cache import cache_fault

    if plan.record.execution.backend == "openvino" and (fault := cache_fault()):
        yield (
            f"Nothing can be kept in the cache {fault}. What is not in it, each worker makes anew; "
            "CIFAR_RAY_CACHE names another place."
        )


def _engine(plan: "Plan", options: "RunOptions") -> tuple["Engine", str]:
    """Choose the engine, and say why."""
    cores = usable_cores()
    kind, reason = options.engine, "as asked"
    if kind == "local" and options.dashboard:
        raise InputError("--dashboard is Ray's, and the local engine has none: leave one out.")
    if kind == "auto" and options.dashboard:
        kind, reason = "ray", "for its dashboard"
    elif kind == "auto" and options.address:
        kind, reason = "ray", f"address {options.address}"
    elif kind == "auto" and cores >= RAY_REPAYS_CORES:
        kind, reason = "ray", f"{cores} cores"
    elif kind == "auto":
        kind, reason = "local", f"{cores} cores do not repay the start of Ray"
    if kind == "ray":
        from cifar_ray.on_ray.prediction import RayEngine

        number = (
            "as many workers as fit" if options.workers is None else f"{options.workers} workers"
        )
        ray_engine = RayEngine(options.workers, options.store_timeout_s, options.address)
        return ray_engine, f"Ray engine ({reason}), {number}."
    from cifar_ray.prediction.arrow_alone import keep_pandas_out
    from cifar_ray.prediction.local import LocalEngine

    keep_pandas_out()
    num_workers = options.workers or max(1, cores // plan.record.execution.threads)
    local_engine = LocalEngine(
        plan.store.uri, plan.source.reference, num_workers, options.store_timeout_s
    )
    number = "1 worker" if num_workers == 1 else f"{num_workers} workers"
    return local_engine, f"Local engine ({reason}), {number}."


def _show_receipt(plan: "Plan", receipt: "Receipt", as_json: bool) -> None:
    if as_json:
        sys.stdout.write(receipt.model_dump_json(indent=2) + "\n")
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("found", f"{receipt.found:,}")
    for kind, number in receipt.skipped.items():
        table.add_row(Text(f"  skipped {kind}"), f"{number:,}")
    table.add_row("listed", f"{receipt.listed:,}" + (" (partial)" if receipt.partial else ""))
    table.add_row("  ok", f"{receipt.ok:,}")
    for status, number in receipt.failed.items():
        table.add_row(f"  {status}", f"{number:,}")
    output = Console(highlight=False)
    output.print(table)
    for name, compared in (receipt.forecast or {}).items():
        output.print(Text(_comparison(name, compared)))
    output.print(Text(f"Rows    {plan.store.uri}/predictions"))
    output.print(Text(f"Report  {plan.store.uri}/report.html"))


def _comparison(name: str, compared: "Compared") -> str:
    planned = f"{compared.expected:,.4g}"
    if compared.low < compared.high:
        planned += f" ({compared.low:,.4g} to {compared.high:,.4g})"
    return f"Planned {name.replace('_', ' ')} {planned}, was {compared.actual:,.4g}"


def _show_stages(stages: dict[str, float]) -> None:
    table = Table("stage", "seconds, all workers", "share", "")
    total = sum(stages.values())
    for stage, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        bar = Bar(total, 0, seconds, width=PROFILE_BAR_WIDTH)
        table.add_row(stage, f"{seconds:.2f}", f"{seconds / total:.0%}", bar)
    Console().print(table)


def _show_dry_run(request: "Request", options: "RunOptions", as_json: bool) -> None:
    from cifar_ray.prediction.dry_run import dry_run

    preview = dry_run(request, options, usable_cores())
    if as_json:
        sys.stdout.write(preview.model_dump_json(indent=2) + "\n")
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("model", Text(preview.model))
    table.add_row("classes", Text(preview.classes))
    table.add_row("found", f"{preview.found:,}")
    for kind, number in preview.skipped.items():
        table.add_row(Text(f"  skipped {kind}"), f"{number:,}")
    table.add_row("to label", f"{preview.listed:,} images, {preview.image_bytes / 1e6:,.1f} MB")
    table.add_row("parts", Text(f"{preview.parts:,} below {request.destination}/predictions"))
    if preview.parts_done:
        done = f"{preview.parts_done:,} parts, {preview.images_done:,} images"
        table.add_row("done already", done)
    table.add_row("output", f"about {preview.output_bytes / 1e6:,.1f} MB")
    table.add_row("time", f"about {duration(preview.seconds)} ({preview.basis})")
    output = Console(highlight=False)
    output.print(table)
    for warning in preview.warnings:
        output.print(Text(f"Warning: {warning}", style="yellow"))
    if preview.complete:
        output.print(Text(f"{request.destination} is complete already; nothing to do."))
    output.print("Nothing was written.")
