"""`cifar-ray submit` and `jobs`: the verbs as jobs of a cluster."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.main import get_command

from cifar_ray.cli import evaluate, predict, train, tune
from cifar_ray.cli.boundary import INTERRUPTED, Ended, console
from cifar_ray.cli.job_specs import Submit
from cifar_ray.errors import InputError, did_you_mean, printable

if TYPE_CHECKING:
    from cifar_ray.on_ray.jobs import JobRow, Jobs

DASHBOARD = "http://127.0.0.1:8265"
ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""The variable that Ray's own `ray job` reads."""
SUBMITTED = {
    "predict": predict.register,
    "train": train.register,
    "tune": tune.register,
    "evaluate": evaluate.register,
}
REFUSED = ("--dry-run", "--profile", "--dashboard")
SUBMIT_EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray submit predict s3://bucket/photos --out s3://bucket/labels --address http://127.0.0.1:8265

  cifar-ray submit predict /mnt/photos --out /mnt/labels --shared-path --follow

  cifar-ray submit train cifar10 --recipe cnn-122k --out /mnt/runs/first --workers 4 --shared-path

  cifar-ray submit train --from s3://bucket/runs/first --out s3://bucket/runs/again --set seed=1
"""
JOBS_EXAMPLE = """
[bold]Example[/bold]

  cifar-ray jobs logs -f predict-1f0c5a3b9e77-1
"""

Address = Annotated[
    str,
    typer.Option(envvar=ADDRESS_VARIABLE, help="The cluster's dashboard, http://HOST:PORT."),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="As `submit` and `jobs list` print it.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]

jobs_app = typer.Typer(
    help="Jobs of a cluster: list, status, logs, stop.",
    no_args_is_help=True,
    epilog=JOBS_EXAMPLE,
)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    app.command("submit", epilog=SUBMIT_EXAMPLES, context_settings=settings)(submit)
    app.add_typer(jobs_app, name="jobs")


def submit(
    context: typer.Context,
    verb: Annotated[str, typer.Argument(metavar="VERB …", help=" or ".join(SUBMITTED))],
    address: Address = DASHBOARD,
    ship_code: Annotated[
        bool,
        typer.Option("--ship-code", help="Send this clone and its lock, to nodes without them."),
    ] = False,
    shared_path: Annotated[
        bool,
        typer.Option("--shared-path", help="Every node has the local paths that are given."),
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show its log; end with its exit code.")
    ] = False,
    json_: Json = False,
) -> None:
    """Run a verb on a cluster, with all the options that the verb has (see its own --help).

    The same command while its job lives finds that job; after a stop or a failure it goes on.
    """
    if verb not in SUBMITTED:
        raise InputError(f"submit {printable(verb)}: {did_you_mean(verb, SUBMITTED)}")
    refused = [option for option in REFUSED if option in context.args]
    if refused:
        raise InputError(f"{refused[0]} is for this machine: run `cifar-ray {verb}` with it.")
    from cifar_ray.on_ray.jobs import Jobs
    from cifar_ray.on_ray.submitting import Submitter

    jobs = Jobs(address)
    run = Submit(Submitter(jobs, ship_code, shared_path))
    _parse(verb, context.args, run)
    assert run.submission is not None, "the verb calls what it finds in its context"
    job_id = run.submission.job_id
    if json_:
        _print_json({**asdict(run.submission), "address": jobs.address})
    else:
        _show_submission(job_id, run.submission.started, address)
    if follow:
        raise Ended(_follow(jobs, job_id, show=not json_))


def _parse(verb: str, arguments: list[str], run: Submit) -> None:
    """Let the verb's own command read its arguments."""
    app = typer.Typer(pretty_exceptions_enable=False)
    SUBMITTED[verb](app)
    group = get_command(app)
    command = group.get_command(None, verb) if hasattr(group, "get_command") else group
    with command.make_context(f"cifar-ray submit {verb}", list(arguments), obj=run) as context:
        command.invoke(context)


def _show_submission(job_id: str, started: bool, address: str) -> None:
    console.print(Text(f"Job {job_id} {'is submitted' if started else 'runs already'}."))
    option = "" if address == DASHBOARD else f" --address {address}"
    for command, what in (
        ("logs -f", "follow it; Ctrl-C leaves it running"),
        ("status", "how it is"),
        ("stop", "end it; the same submit goes on later"),
    ):
        console.print(Text(f"  cifar-ray jobs {command} {job_id}{option}   # {what}"))


@jobs_app.command("list")
def list_(address: Address = DASHBOARD, json_: Json = False) -> None:
    """List the jobs that `submit` started, newest first."""
    rows = _jobs(address).rows()
    if json_:
        _print_json([asdict(row) for row in rows])
        return
    table = Table("id", "status", "started", "ended", "to", box=None, pad_edge=False)
    for row in rows:
        cells = (row.id, _state(row), row.started_at or "", row.ended_at or "", row.destination)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    Console().print(table)


@jobs_app.command()
def status(job_id: JobId, address: Address = DASHBOARD, json_: Json = False) -> None:
    """Tell how a job is."""
    row = _jobs(address).row(job_id)
    if json_:
        _print_json(asdict(row))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in asdict(row).items():
        if value is not None:
            table.add_row(name.replace("_", " "), Text(printable(str(value), keep="\n")))
    Console().print(table)


@jobs_app.command()
def logs(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Until it ends; then end with its exit code.")
    ] = False,
    address: Address = DASHBOARD,
    json_: Json = False,
) -> None:
    """Print what a job printed."""
    jobs = _jobs(address)
    if follow:
        raise Ended(_follow(jobs, job_id, show=not json_))
    text = jobs.log(job_id)
    if json_:
        _print_json({"id": job_id, "log": text})
    else:
        sys.stdout.write(printable(text, keep="\n"))


@jobs_app.command()
def stop(job_id: JobId, address: Address = DASHBOARD, json_: Json = False) -> None:
    """Stop a job. What it has done is kept; the same `submit` goes on."""
    jobs = _jobs(address)
    stopped = jobs.stop(job_id)
    row = jobs.wait(job_id)
    if json_:
        _print_json({**asdict(row), "stopped": stopped})
    else:
        word = "is stopped" if stopped else f"had ended before ({row.status})"
        console.print(Text(f"Job {job_id} {word}."))


def _follow(jobs: "Jobs", job_id: str, show: bool) -> int:
    """Show a job's log until it ends (or just wait, then print its row); return its exit code."""
    try:
        if show:
            for chunk in jobs.follow(job_id):
                sys.stdout.write(printable(chunk, keep="\n"))
                sys.stdout.flush()
        row = jobs.wait(job_id)
    except KeyboardInterrupt:
        console.print(Text(f"\nJob {job_id} goes on. `cifar-ray jobs stop {job_id}` ends it."))
        raise Ended(INTERRUPTED) from None
    assert row.exit_code is not None
    if not show:
        _print_json(asdict(row))
    elif row.exit_code:
        message = printable(row.message, keep="\n")
        console.print(Text(f"Job {job_id}: {_state(row)}. {message}"))
    return row.exit_code


def _jobs(address: str) -> "Jobs":
    from cifar_ray.on_ray.jobs import Jobs

    return Jobs(address)


def _state(row: "JobRow") -> str:
    return f"{row.status}, exit code {row.exit_code}" if row.exit_code else row.status


def _print_json(content: object) -> None:
    sys.stdout.write(json.dumps(content, indent=1) + "\n")
