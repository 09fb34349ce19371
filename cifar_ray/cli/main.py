"""`cifar-ray`: builds the command line and is the error boundary."""

import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from cifar_ray import __version__
from cifar_ray.cli import (
    bot,
    boundary,
    cluster,
    doctor,
    evaluate,
    export,
    jobs,
    models,
    plan,
    predict,
    quantize,
    recipes,
    serve,
    status,
    train,
    tune,
    verify,
)

app = typer.Typer(
    name="cifar-ray",
    help="Label a store of images, once and whole, into Parquet. Train the classifier for it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"cifar-ray {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks of errors.")] = False,
) -> None:
    """Label a store of images, once and whole, into Parquet. Train the classifier for it."""
    if debug:
        boundary.enable_debug()


VERBS = (
    *(plan, predict, verify, status, export),
    *(train, recipes, tune, evaluate, quantize, models),
    *(jobs, cluster, doctor),
    *(serve, bot),
)
for verb in VERBS:
    verb.register(app)


def terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Treat SIGTERM as Ctrl-C."""
    raise KeyboardInterrupt


def run() -> NoReturn:
    """Run the command line and exit with one of the codes that the README lists."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        app()
    except SystemExit as exit_:
        # Typer has turned Ctrl-C into its exit code and said nothing about it.
        if exit_.code == boundary.INTERRUPTED and not isinstance(exit_, boundary.Ended):
            boundary.report(KeyboardInterrupt())
        raise
    except Exception as error:  # noqa: BLE001 -- the boundary: reported, with its exit code
        sys.exit(boundary.report(error))
    sys.exit(0)
