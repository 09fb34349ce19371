"""`cifar-ray cluster`: validate a cluster.yaml, and drive Ray's launcher with it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cifar_ray.cli.boundary import Ended, console

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray cluster check cluster.yaml

  cifar-ray cluster up cluster.yaml
"""

cluster_app = typer.Typer(
    help="A cluster on AWS, as cluster.yaml describes it: check, up, down, dashboard.",
    no_args_is_help=True,
    epilog=EXAMPLES,
)
File = Annotated[Path, typer.Argument(metavar="FILE", help="As Ray's cluster launcher takes it.")]
DEFAULT = Path("cluster.yaml")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(cluster_app, name="cluster")


@cluster_app.command()
def check(
    file: File = DEFAULT,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Validate a file against Ray's schema and our rules; needs no network and no account."""
    from cifar_ray.on_ray import launcher

    launcher.check(file)
    if json_:
        sys.stdout.write(json.dumps({"file": str(file), "valid": True}) + "\n")
    else:
        console.print(Text(f"{file} fits Ray's schema and our rules."))


@cluster_app.command()
def up(file: File = DEFAULT) -> None:
    """Start the cluster, or bring it to what the file says. Machines cost money until `down`."""
    from cifar_ray.on_ray import launcher

    launcher.check(file)
    token = launcher.ensure_token()
    console.print(Text(f"Whoever has {token} may run code on the cluster."))
    raise Ended(_run(launcher.command("up", file)))


@cluster_app.command()
def down(file: File = DEFAULT) -> None:
    """End the cluster and all its machines."""
    from cifar_ray.on_ray import launcher

    raise Ended(_run(launcher.command("down", file)))


@cluster_app.command()
def dashboard(file: File = DEFAULT) -> None:
    """Open a tunnel to the dashboard, for the browser, `submit` and `jobs`; Ctrl-C closes it."""
    from cifar_ray.on_ray import launcher

    raise Ended(_run(launcher.command("dashboard", file)))


def _run(command: list[str]) -> int:
    return subprocess.run(command).returncode
