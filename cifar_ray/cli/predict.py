"""`cifar-ray predict`: label a store."""

import functools
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from cifar_ray.cli import job_specs
from cifar_ray.cli.boundary import console
from cifar_ray.cli.connection import HERE, chosen_address, connected
from cifar_ray.cli.display import shown_dashboard
from cifar_ray.cli.engine_choice import choose_engine
from cifar_ray.cli.labelling_display import (
    LabellingDisplay,
    show_model,
    show_preview,
    show_receipt,
    show_stages,
)
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
    from cifar_ray.config.labelling import RunOptions
    from cifar_ray.prediction.pipeline import RunProgress
    from cifar_ray.prediction.plan import Plan, Request, Resolve
    from cifar_ray.prediction.receipt import Receipt
    from cifar_ray.prediction.renewal.history import Reason
    from cifar_ray.storage.lease import Lease

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
    from cifar_ray.config.labelling import LabellingConfig, RunOptions
    from cifar_ray.prediction.plan import Request

    if limit is not None and sample is not None:
        raise InputError("Give --limit (the first N) or --sample (N drawn by seed), not both.")
    if retry_failed and update:
        raise InputError("Give --retry-failed or --update; one after the other.")
    if dry_run and (retry_failed or update):
        raise InputError("--dry-run does not look at what --retry-failed or --update would do.")
    if fresh and not yes and not dry_run:
        _confirm_fresh(out)
    options = RunOptions(
        engine="local" if local else engine,
        address=chosen_address(address),
        workers=workers,
        max_failure_rate=max_failure_rate,
        store_timeout_s=store_timeout,
        dashboard=dashboard,
    )
    config = LabellingConfig(
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
        _dry_run(request, options, json_)
        return
    again: Reason | None = "retry-failed" if retry_failed else "update" if update else None
    if isinstance(context.obj, job_specs.Submit):
        context.obj(job_specs.predict_job(request, options, again))
    else:
        _run(request, options, again, profile, json_)


def run_job(job: "PredictJob") -> None:
    """Run what was submitted, as the verb does."""
    options = job.options.model_copy(update={"address": chosen_address(None)})
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


def _dry_run(request: "Request", options: "RunOptions", as_json: bool) -> None:
    from cifar_ray.prediction.forecasting.dry_run import dry_run

    show_preview(dry_run(request, options, usable_cores()), request.destination, as_json)


def _run(
    request: "Request",
    options: "RunOptions",
    again: "Reason | None",
    profile: bool,
    as_json: bool,
) -> None:
    from cifar_ray.prediction.plan import prepare, settle
    from cifar_ray.storage.lease import hold

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
    from cifar_ray.prediction.renewal.renew import renew

    receipt = sealed_receipt(plan)
    if receipt is not None and again is None:
        console.print(Text(f"{plan.store.uri} is complete already; nothing to do."))
        show_receipt(receipt, plan.store.uri, as_json)
        refuse_failures(receipt, options.max_failure_rate)
        return
    show_model(plan)
    engine, why = choose_engine(plan, options)
    console.print(Text(why))
    if plan.resumed:
        console.print("Going on with the run in DEST.")
    stages: dict[str, float] = {}

    def run() -> "Receipt":
        shown = shown_dashboard(options.dashboard, options.address)
        with shown, LabellingDisplay(console).live() as show:

            def update(progress: "RunProgress") -> None:
                lease.check()
                stages.update(progress.stage_seconds)
                show(progress)

            return label(plan, engine, options.max_failure_rate, update, lease.confirm)

    receipt = run() if again is None else renew(plan, again, run, console.print, lease.confirm)
    show_receipt(receipt, plan.store.uri, as_json)
    if profile:
        show_stages(stages)
