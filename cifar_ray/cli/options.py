"""Options that several verbs have in common."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[
    str | None,
    typer.Option(
        help="A bundle's folder or s3:// place, or torchvision:NAME. Default: the model in the box."
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="With torchvision:NAME: its weights, or a folder with NAME.pth in it."),
]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where the model runs.")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16", "int8"],
    typer.Option(help="What the model computes in; int8 with a bundle that `quantize` made."),
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images a batch.")]
ImagesPerShard = Annotated[
    int | None, typer.Option(min=1, help="A constant number of images a part.")
]
Root = Annotated[
    str | None,
    typer.Option(
        help="The folder, or s3://BUCKET/PREFIX, below which a manifest's uris lie. Default: "
        "its own folder or bucket."
    ),
]
Dashboard = Annotated[
    bool, typer.Option("--dashboard", help="With Ray on this machine: start its dashboard.")
]
