"""`cifar-ray recipes`."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray recipes

  cifar-ray recipes finetune
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("recipes", epilog=EXAMPLES)(recipes)


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show all fields of this one.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List what can be trained, or the fields of one recipe as `train --set` takes them."""
    if name is not None:
        _show_fields(name, json_)
        return
    from cifar_ray.config.recipes import RECIPES

    rows = [_row(name) for name in RECIPES]
    if json_:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    output = Console(highlight=False)
    for row in rows:
        output.print(Text.assemble((row["name"], "bold"), f"  {row['description']}"))
        output.print(Text(f"    {_in_words(row)}", style="dim"))
    output.print(
        "\nReached: on CIFAR-10, by a run of the recipe, in minutes of two CPU cores. Reported:"
        " by the report that the recipe reproduces."
    )


def _show_fields(name: str, as_json: bool) -> None:
    from cifar_ray.config.recipes import get_recipe
    from cifar_ray.config.training import TOLD

    left_out = TOLD | {"recipe"}
    fields = {key: v for key, v in get_recipe(name).flat().items() if key not in left_out}
    if as_json:
        sys.stdout.write(json.dumps(fields, indent=2) + "\n")
        return
    for key, value in fields.items():
        # A plain word may stand as it is.
        text = value if isinstance(value, str) else json.dumps(value)
        sys.stdout.write(f"{key}={text}\n")


def _in_words(row: dict[str, Any]) -> str:
    weights = f", from {row['weights']}" if row["pretrained"] else ""
    parts = [
        f"{row['network']} ({row['parameters']:,} parameters{weights})",
        f"{row['epochs']} epochs, {row['schedule']} rate",
        _accuracy_in_words(row),
    ]
    if row["minutes"] is not None:
        parts.append(f"{row['minutes']:g} min")
    return " · ".join(parts)


def _accuracy_in_words(row: dict[str, Any]) -> str:
    if row["expected_accuracy"] is not None:
        return f"reached {row['expected_accuracy']:.1%}"
    if row["reported_accuracy"] is not None:
        return f"not run on CIFAR-10 yet, reported {row['reported_accuracy']:.1%}"
    return "not run on CIFAR-10 yet"


def _row(name: str) -> dict[str, Any]:
    from cifar_ray.config.recipes import RECIPES, get_recipe
    from cifar_ray.config.recipes.reports import REPORTED
    from cifar_ray.models import registry

    config = get_recipe(name)
    network = registry.get(config.network)
    return {
        "name": name,
        "network": config.network,
        "parameters": network.parameters,
        "pretrained": config.transfer.pretrained,
        "weights": "ImageNet's weights" if network.pretrained else "--weights FILE",
        "epochs": config.epochs,
        "schedule": config.schedule.name,
        "expected_accuracy": config.expected_accuracy,
        "reported_accuracy": REPORTED[name].accuracy if name in REPORTED else None,
        "minutes": config.minutes,
        "description": (RECIPES[name].__doc__ or "").strip().partition("\n")[0],
    }
