"""`cifar-ray status`: how far a labelling run is, wherever it runs."""

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cifar_ray.cli.display import duration
from cifar_ray.errors import Unfinished, printable

if TYPE_CHECKING:
    from cifar_ray.prediction.status import Status

INTERVAL_S = 5.0

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray status labels

  cifar-ray status labels --watch
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("status", epilog=EXAMPLES)(status)


def status(
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Where a run writes.")],
    exact: Annotated[
        bool, typer.Option("--exact", help="Open every part, not a sample: slow for large runs.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every few seconds until it is complete.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Tell progress, rate, failures and time left of a run, from its files alone.

    Exit code 0: the run is complete. 4: it is open, at work or not. 2: there is none.
    """
    from cifar_ray.prediction.status import run_status
    from cifar_ray.storage import open_store

    store = open_store(dest)
    found = run_status(store, exact)
    if watch:
        with Live(_table(found), console=Console(highlight=False)) as live:
            while not found.sealed:
                time.sleep(INTERVAL_S)
                found = run_status(store, exact)
                live.update(_table(found))
    elif json_:
        sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
    else:
        Console(highlight=False).print(_table(found))
    if not found.sealed:
        raise Unfinished("The run is open. The command that began it goes on with it.")


def _table(found: "Status") -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("state", Text(_state(found)))
    more = "" if found.listing_ended else ", still listing"
    table.add_row("images", f"{found.images_done:,} of {found.images_listed:,}{more}")
    table.add_row("parts", f"{found.shards_done:,} of {found.shards_listed:,}")
    if found.images_per_second is not None:
        table.add_row("rate", f"{found.images_per_second:,.1f} images/s of late")
    if found.seconds_left:
        table.add_row("left", f"about {duration(found.seconds_left)}")
    if found.newest_part_at is not None:
        table.add_row("written", f"last at {found.newest_part_at}")
    counted = "" if found.exact else f" of {found.images_counted:,} looked at"
    table.add_row("failed", f"{found.failure_rate:.2%}{counted}")
    for status, number in found.statuses.items():
        table.add_row(f"  {status}", f"{number:,}")
    return table


def _state(found: "Status") -> str:
    if found.sealed:
        return "complete"
    if found.driver is None:
        return "open; nobody works on it"
    who = f"process {found.driver.process_id} on {printable(found.driver.host)}"
    if found.driver.alive is False:
        return f"open; {who} has died"
    return f"{who} works on it" + ("" if found.driver.alive else ", if it lives")
