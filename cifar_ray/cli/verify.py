"""`cifar-ray verify`: prove that a labelling run is whole, and open a damaged one again."""

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from cifar_ray.cli.boundary import console
from cifar_ray.errors import Unfinished, VerificationFailed, printable

if TYPE_CHECKING:
    from cifar_ray.config.labelling import SourceReference
    from cifar_ray.prediction.verification.shard_check import Difference
    from cifar_ray.prediction.verification.verify import Verified
    from cifar_ray.storage import Store

SHOWN = 20

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray verify labels

  cifar-ray verify labels --replay 200

  cifar-ray verify labels --repair
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("verify", epilog=EXAMPLES)(verify)


def verify(
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Where a run was written.")],
    replay: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Read N random rows' images and label them again."),
    ] = 0,
    source: Annotated[
        str | None, typer.Option(help="With --replay: where the images lie now, if they moved.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of --replay.")] = 0,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Move what is damaged away and open the run again."),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Prove that rows = listing, that no key is there twice, and that every part is as sealed.

    Needs neither the model nor the images. Exit code 5 if anything differs.
    """
    from cifar_ray.runs import LabellingRun
    from cifar_ray.storage import open_store
    from cifar_ray.storage.lease import hold

    store = open_store(dest)
    repair = repair and store.exists(LabellingRun.RECORD)
    # Who repairs a run is alone with it from the first look on.
    with hold(store) if repair else nullcontext():
        _verify(store, dest, replay, source, seed, repair, json_)


def _verify(
    store: "Store",
    dest: str,
    replay: int,
    source: str | None,
    seed: int,
    repair: bool,
    json_: bool,
) -> None:
    from cifar_ray.prediction.verification import replay as replaying
    from cifar_ray.prediction.verification.repair import finish_begun
    from cifar_ray.prediction.verification.verify import verify as look

    if repair:
        finish_begun(store)
    with _bar() as progress:
        task = progress.add_task("verifying", total=None)
        verified = look(store, lambda rows: progress.advance(task, rows), open_too=repair)
    differences = list(verified.differences)
    if verified.receipt is None and not differences:
        raise Unfinished(
            f"{printable(store.uri)} is not sealed, and nothing of what is there is damaged. Give "
            "the predict command again to finish it."
        )
    if replay and not differences:
        reference = _source(verified, source)
        console.print(Text(f"Labelling {replay} random rows again …"))
        differences += replaying.replay(store, reference, replay, seed)
    if json_:
        found = {
            "rows": verified.rows,
            "parts": verified.parts,
            "replayed": replay,
            "differences": [asdict(found) for found in differences],
        }
        sys.stdout.write(json.dumps(found, indent=2, default=str) + "\n")
    if not differences:
        console.print(Text(_whole(store, verified, replay)))
        return
    if not json_:
        _show(differences)
    raise VerificationFailed(_repair(store, verified) if repair else _advice(dest, differences))


def _source(verified: "Verified", source: str | None) -> "SourceReference":
    from cifar_ray.prediction.sources import find_source

    recorded, config = verified.record.source, verified.record.config
    if source is None:
        return recorded
    return recorded.model_copy(update={"uri": find_source(source, None, config).uri})


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _whole(store: "Store", verified: "Verified", replayed: int) -> str:
    again = f" {replayed:,} rows, labelled again, come out the same." if replayed else ""
    return (
        f"{store.uri} is whole: {verified.rows:,} rows in {verified.parts:,} parts, one for each "
        f"listed image, as they were sealed.{again}"
    )


def _show(differences: list["Difference"]) -> None:
    table = Table("where", "what")
    for found in differences[:SHOWN]:
        table.add_row(Text(printable(found.where)), Text(printable(found.what)))
    console.print(table)
    if len(differences) > SHOWN:
        console.print(f"… and {len(differences) - SHOWN} more; --json prints them all.")


def _advice(dest: str, differences: list["Difference"]) -> str:
    number = "1 difference" if len(differences) == 1 else f"{len(differences)} differences"
    first = differences[0]
    return (
        f"{number}; the first: {first.where} {first.what}. `cifar-ray verify {dest} --repair` "
        "moves what is damaged to _history/ and opens the run; the predict command then does "
        "just that again."
    )


def _repair(store: "Store", verified: "Verified") -> str:
    from cifar_ray.prediction.verification.repair import repair

    reopening = repair(store, verified)
    return (
        f"What is damaged lies in {store.uri}/_history/{reopening.number:04d} now, and the run is "
        "open again. Give the predict command that made it: it does just that again."
    )
