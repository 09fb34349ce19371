"""Options that several verbs have in common."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[
    str | None,
    typer.Option(help="A bundle's folder, or torchvision:NAME. Default: the model in the box."),
]
Weights = Annotated[
    Path | None, typer.Option(help="With torchvision:NAME: its weights, as a file.")
]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where the model runs.")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"], typer.Option(help="What the model computes in.")
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images a batch.")]
ImagesPerShard = Annotated[
    int | None, typer.Option(min=1, help="A constant number of images a part.")
]
