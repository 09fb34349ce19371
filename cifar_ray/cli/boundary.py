"""The one place where errors become a message and an exit code."""

import os
import sys
import traceback

from rich.console import Console
from rich.text import Text

from cifar_ray.errors import OUT_OF_SPACE, CifarRayError, Unfinished, printable

INTERRUPTED = 130
UNEXPECTED = 1
DEBUG_VARIABLE = "CIFAR_RAY_DEBUG"

console = Console(stderr=True, highlight=False, soft_wrap=True)


class Ended(SystemExit):
    """The end of a command that has said itself why it ends with this code."""


def enable_debug() -> None:
    """Print tracebacks from now on, in the processes that we start too."""
    os.environ[DEBUG_VARIABLE] = "1"


def report(error: BaseException) -> int:
    """Print what went wrong, in one to three lines, and return the exit code."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        message = "Interrupted. What is done is kept; the same command goes on from there."
        console.print(Text(message, style="yellow"))
        return INTERRUPTED
    if isinstance(error, OSError) and error.errno in OUT_OF_SPACE:
        which = f"of {error.filename}" if error.filename else "that is written to"
        error = Unfinished(
            f"No space left on the disk {which}. Free some space, or give a place on another disk,"
            " and run the command again."
        )
    if isinstance(error, CifarRayError):
        message = printable(str(error), keep="\n")
        console.print(Text.assemble(("Error: ", "bold red"), message))
        return error.exit_code
    console.print(
        Text.assemble(
            ("Unexpected error: ", "bold red"),
            printable(f"{type(error).__name__}: {error}\n", keep="\n"),
            "This is a fault of cifar-ray. Run again with --debug before the verb for a traceback, "
            "and report it.",
        )
    )
    return UNEXPECTED
