"""`cifar-ray models` and `import`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_ray.errors import InputError

IMPORT_EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray import resnet18.pth --network resnet18 --labels classes.txt --out my-model

  cifar-ray import net.safetensors --network cnn-122k --labels cifar10 --out my-model --squash
    --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5
"""


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("models", epilog="[bold]Example[/bold]\n\n  cifar-ray models --json")(models)
    app.command("import", epilog=IMPORT_EXAMPLES)(import_)


def models(
    json_: Annotated[bool, typer.Option("--json", help="Print a list as JSON.")] = False,
) -> None:
    """List the networks that can be built, trained and imported."""
    from cifar_ray.models import registry

    specs = [registry.get(name) for name in registry.names()]
    if json_:
        rows = [
            {"name": spec.name, "parameters": spec.parameters, "input_size": spec.input_size}
            for spec in specs
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("name", box=None, pad_edge=False)
    for column in ("parameters", "input size"):
        table.add_column(column, justify="right")
    for spec in specs:
        table.add_row(spec.name, f"{spec.parameters:,}", f"{spec.input_size}×{spec.input_size}")
    Console().print(table)
    Console().print(
        "torchvision:NAME comes with ImageNet's weights and classes, parameters for 1,000 classes;"
        " the others are counted for 10.",
        style="dim",
    )


def import_(
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS", help="A .safetensors file or a state_dict (.pth).")
    ],
    network: Annotated[str, typer.Option(help="A name that `cifar-ray models` lists.")],
    labels: Annotated[
        str,
        typer.Option(metavar="FILE", help="Class names: .txt (a line each), .json, or `cifar10`."),
    ],
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="The bundle's folder; new.")],
    input_size: Annotated[
        int | None,
        typer.Option("--input-size", "--crop", min=1, help="Side of the network's input, pixels."),
    ] = None,
    resize: Annotated[
        int | None, typer.Option(min=1, help="Short side in pixels before the centre crop.")
    ] = None,
    squash: Annotated[
        bool, typer.Option("--squash", help="Scale both sides to the input size, without a crop.")
    ] = False,
    interpolation: Annotated[
        str | None, typer.Option(help="How images are scaled: bilinear, bicubic, nearest, ….")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Of pixels scaled to [0, 1].")
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Of pixels scaled to [0, 1].")
    ] = None,
) -> None:
    """Make a bundle of your own weights, to label with `predict --model BUNDLE`.

    What is left out of the preprocessing is as networks of that input size are mostly trained.
    """
    changes = {
        "resize": resize,
        "interpolation": interpolation,
        "mean": _channels("--mean", mean),
        "std": _channels("--std", std),
    }
    if squash and resize:
        raise InputError("Give --resize (short side, then a crop) or --squash, not both.")
    from cifar_ray.images import labels as label_names
    from cifar_ray.models.importing import change_preprocess, default_preprocess, import_weights

    names = (
        list(label_names.CIFAR10) if labels == "cifar10" else label_names.read_labels(Path(labels))
    )
    preprocess = change_preprocess(default_preprocess(network, input_size), changes, squash)
    bundle = import_weights(weights, network, names, preprocess, out)
    Console().print(Text(f"{out}: {bundle.id}, {len(names)} classes, its self-test passes."))
    scaling = f"squashed to {preprocess.squash}" if squash else f"short side {preprocess.resize}"
    Console().print(
        Text(
            f"Images are {scaling}, {preprocess.input_size}×{preprocess.input_size} go in"
            f" ({preprocess.interpolation}), mean {preprocess.mean}, std {preprocess.std}."
        )
    )


def _channels(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise InputError(f"{option} takes three numbers such as 0.5,0.5,0.5, not {text!r}.")
    return values
