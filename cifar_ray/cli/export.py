"""`cifar-ray export`: hand the labels of a run over."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from cifar_ray.cli.boundary import console
from cifar_ray.errors import InputError, Unfinished, printable

if TYPE_CHECKING:
    from cifar_ray.storage import Store

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray export labels --csv labels.csv

  cifar-ray export labels --folders sorted

  cifar-ray export labels --review doubtful.csv --below 0.7

  cifar-ray export labels --review tasks.json --below 0.7 --format label-studio
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("export", epilog=EXAMPLES)(export)


def export(
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Where a run was written.")],
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Every row, for a spreadsheet.")
    ] = None,
    folders: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The images in folders by label; links, where they can."),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="With --folders: copies, no links.")] = False,
    review: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows that somebody should look at.")
    ] = None,
    below: Annotated[
        float | None, typer.Option(min=0, max=1, help="With --review: scores below this.")
    ] = None,
    format_: Annotated[
        Literal["csv", "label-studio"], typer.Option("--format", help="With --review.")
    ] = "csv",
) -> None:
    """Write the labels of a run as CSV, as folders by label, or as a list for review.

    Of a run that is not complete, what it has so far; the exit code is then 4.
    """
    from cifar_ray.storage import open_store

    if [csv, folders, review].count(None) != 2:
        raise InputError("Give one of --csv FILE, --folders DIR and --review FILE.")
    if (review is None) != (below is None):
        raise InputError("Give --review FILE and --below SCORE together, such as --below 0.7.")
    store = open_store(dest)
    with _bar(store) as on_rows:
        if csv is not None:
            from cifar_ray.prediction.export.spreadsheet import export_csv

            done = f"{export_csv(store, csv, on_rows):,} rows in {csv}"
        elif folders is not None:
            done = _export_folders(store, folders, copy, on_rows)
        elif review is not None and below is not None:
            from cifar_ray.prediction.export.review import export_review

            done = f"{export_review(store, review, below, format_, on_rows):,} rows in {review}"
    console.print(Text(printable(done)))
    _say_if_open(store)


def _export_folders(
    store: "Store", folder: Path, copy: bool, on_rows: Callable[[int], None]
) -> str:
    from cifar_ray.prediction.export.folders import export_folders

    found = export_folders(store, folder, copy, on_rows)
    text = f"{found.exported:,} images in {folder}"
    if found.without_label:
        text += f"; {found.without_label:,} have no label"
    if found.changed:
        text += f"; {found.changed:,} are gone or were changed since they were labelled"
    return text


@contextmanager
def _bar(store: "Store") -> Iterator[Callable[[int], None]]:
    """Check that there is a run, and show progress within the block."""
    from cifar_ray.prediction.reading import run_record
    from cifar_ray.prediction.receipt import read_receipt

    run_record(store)
    receipt = read_receipt(store)
    columns = (TextColumn("exporting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=receipt.listed if receipt else None)
        yield lambda rows: progress.advance(task, rows)


def _say_if_open(store: "Store") -> None:
    from cifar_ray.prediction.receipt import read_receipt

    if read_receipt(store) is None:
        raise Unfinished("The run is not complete; these are the rows that it has so far.")
