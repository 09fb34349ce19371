"""`make demo`: makes a store of images in ./demo and labels it with the model in the box.

`python -m examples.demo`, from the clone. The images are CIFAR-10's test images if they are found
below $CIFAR_RAY_DATA or in the cache, or with DEMO_DOWNLOAD=1 downloaded; else they are drawn.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_ray.cli.boundary import report
from cifar_ray.errors import CifarRayError, InputError
from examples.demo_store import DemoStore, make_store

HOME = Path("demo")
MARK = ".gitignore"
MARK_TEXT = "# Made by `make demo`, which deletes this folder and makes it again.\n*\n"
COMMAND = (sys.executable, "-m", "cifar_ray")


def run_demo(home: Path, download: bool = False) -> int:
    """Make the store, label it, tell about it; return the exit code of `cifar-ray predict`."""
    console = Console(highlight=False)
    make_room(home)
    store = make_store(home, download=download)
    console.print(Text(f"A store to label: {store.folder} ({store.origin}).", style="bold"))
    if not store.truth:
        console.print(
            "They show nothing, so that their labels are guesses. For real images: "
            "make demo DEMO_DOWNLOAD=1 (170 MB, from the makers of CIFAR-10)."
        )
    out = home / "labels"
    console.print(Text(f"$ cifar-ray predict {store.folder} --out {out}", style="dim"))
    started = time.monotonic()
    done = subprocess.run(
        [*COMMAND, "predict", str(store.folder), "--out", str(out), "--json"],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        return done.returncode
    console.print(summary(store, out, json.loads(done.stdout), time.monotonic() - started))
    console.print(next_steps(out), soft_wrap=True)
    return 0


def make_room(home: Path) -> None:
    """Delete what an earlier demo made; `InputError` for a folder that is not the demo's."""
    if home.exists():
        if not (home / MARK).is_file() or (home / MARK).read_text() != MARK_TEXT:
            raise InputError(f"There is a folder {home} that the demo did not make. Move it away.")
        shutil.rmtree(home)
    home.mkdir(parents=True)
    (home / MARK).write_text(MARK_TEXT)


def summary(store: DemoStore, out: Path, receipt: dict[str, Any], seconds: float) -> Table:
    table = Table(title="\nWhat came of it", title_justify="left", show_header=False)
    table.add_row("files found", f"{receipt['found']:,}")
    skipped = ", ".join(f"{number} {kind}" for kind, number in receipt["skipped"].items())
    table.add_row("  no images, skipped", skipped)
    table.add_row("images", f"{receipt['listed']:,}")
    table.add_row("  labelled", f"{receipt['ok']:,}")
    for status, number in receipt["failed"].items():
        table.add_row(f"  {status}", f"{number:,}")
    rows = ds.dataset(out / "predictions").to_table(columns=["key", "label"]).to_pylist()
    labels = {row["label"] for row in rows if row["label"]}
    table.add_row("labels given", ", ".join(sorted(labels)))
    table.add_row("accuracy", accuracy(store, rows))
    table.add_row(
        "images/s", f"{receipt['listed'] / seconds:,.0f} ({seconds:.1f} s, start and seal included)"
    )
    table.add_row("rows", Text(f"{out / 'predictions'}"))
    table.add_row("report", Text(f"{out / 'report.html'}"))
    return table


def accuracy(store: DemoStore, rows: list[dict[str, Any]]) -> str:
    known = [row for row in rows if row["key"] in store.truth]
    if not known:
        return "not known: the images are drawn and show nothing"
    right = sum(row["label"] == store.truth[row["key"]] for row in known)
    return f"{right / len(known):.2%} of {len(known):,} images whose truth is known"


def next_steps(out: Path) -> Text:
    """What to type next, for the .venv that runs this."""
    folder = Path(sys.executable).parent
    if Path.cwd() in folder.parents:
        folder = folder.relative_to(Path.cwd())
    python, cifar_ray = folder / "python", folder / "cifar-ray"
    sql = f"SELECT label, count(*) FROM '{out.as_posix()}/predictions/*.parquet' GROUP BY label"
    text = Text()
    for title, *commands in (
        ("Ask the rows", f'{python} -c "import duckdb; duckdb.sql(\\"{sql}\\").show()"'),
        (
            "Your own images, without labels of your own: those of ImageNet",
            f"{cifar_ray} predict FOLDER --out labels --model torchvision:resnet50",
        ),
        (
            "Your own images and labels: train on a folder with a sub-folder a class",
            f"{cifar_ray} train CLASSES --recipe speednet-box-start --local --out runs/mine",
            f"{cifar_ray} predict FOLDER --out labels --model runs/mine/bundle",
        ),
    ):
        text.append(f"\n{title}\n", style="bold")
        text.append("".join(f"  {command}\n" for command in commands))
    return text


def main() -> int:
    try:
        return run_demo(HOME, download=os.environ.get("DEMO_DOWNLOAD") == "1")
    except (CifarRayError, KeyboardInterrupt) as error:
        return report(error)


if __name__ == "__main__":
    sys.exit(main())
