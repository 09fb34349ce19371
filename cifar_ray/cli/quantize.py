"""`cifar-ray quantize`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from cifar_ray.cli.boundary import console
from cifar_ray.cli.options import Root, Weights

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray quantize runs/first/bundle photos --out first-int8

  cifar-ray quantize torchvision:resnet50 s3://bucket/photos --out resnet50-int8 --compare 5000

  cifar-ray predict photos --out labels --model resnet50-int8
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("quantize", epilog=EXAMPLES)(quantize)


def quantize(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A bundle, a run that made one, `box`, or torchvision:NAME."
        ),
    ],
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Images such as will be labelled; as for `predict`."),
    ],
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="The new bundle's folder.")],
    weights: Weights = None,
    root: Root = None,
    images: Annotated[
        int, typer.Option(min=100, help="To measure the ranges of activations on.")
    ] = 300,
    compare: Annotated[int, typer.Option(min=200, help="Other images, to compare labels.")] = 2000,
    min_agreement: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of labels to keep; below it, no bundle.")
    ] = 0.995,
    seed: Annotated[int, typer.Option(help="Of which images are drawn.")] = 0,
) -> None:
    """Make a bundle that labels in int8: on CPUs that multiply it, about twice as fast.

    It keeps the float32 weights too, which label where int8 is not fast. How many labels it keeps
    is measured against float32, told, and written into the bundle.
    """
    from cifar_ray.prediction.quantizing import Question, describe, quantize_bundle

    asked = Question(
        model=None if model == "box" else model,
        source=source,
        weights=weights,
        root=root,
        num_calibration=images,
        num_compared=compare,
        least_agreement=min_agreement,
        seed=seed,
    )
    with console.status("reading images") as status:

        def tell(what: str, done: int) -> None:
            status.update(Text(f"{what}, {done:,} of {compare:,}" if done else what))

        bundle, passed_over = quantize_bundle(asked, out, tell)
    made = bundle.spec.int8
    assert made is not None
    judged = made.comparison
    show = Console().print
    show(
        Text(
            f"In int8, {bundle.id} gives the label of float32 for {judged.agreement:.2%} of "
            f"{judged.num_images:,} images (by chance {judged.shuffled_agreement:.1%}; near-ties "
            f"{judged.near_ties:.1%}); a confidence differs by {judged.largest_difference:.3f} at "
            "most."
        )
    )
    if passed_over:
        show(Text(describe(passed_over), style="yellow"))
    if judged.tells_little:
        show(
            Text(
                "Most of these images have one label, so that this proves little: compare on images"
                " of more classes.",
                style="yellow",
            )
        )
    show(Text(f"Label with it:  cifar-ray predict FOLDER --out DEST --model {out}"))
