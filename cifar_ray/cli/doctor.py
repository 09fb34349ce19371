"""`cifar-ray doctor`: what this machine or a cluster has, and what is wrong with it."""

import json
import platform
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_ray import __version__
from cifar_ray.cli.boundary import Ended
from cifar_ray.config.machine import usable_cores
from cifar_ray.errors import CifarRayError, printable

if TYPE_CHECKING:
    from cifar_ray.on_ray.doors import Doors

PACKAGES = ("torch", "torchvision", "openvino", "ray", "pyarrow", "numpy", "pillow", "simplejpeg")
GIBIBYTE = 2**30
LITTLE_MEMORY_GIB = 4
LITTLE_DISK_GIB = 5
WARNED = 1
EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray doctor

  cifar-ray doctor --address http://127.0.0.1:8265 --store s3://bucket/photos
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("doctor", epilog=EXAMPLES)(doctor)


def doctor(
    address: Annotated[
        str | None, typer.Option(help="A cluster's dashboard, http://HOST:PORT.")
    ] = None,
    store: Annotated[
        list[str] | None, typer.Option(help="A SOURCE or DEST to reach for; may be repeated.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Tell versions, devices, memory, reachability and open doors; exit 1 if there are warnings."""
    found: dict[str, Any] = {"versions": _versions(), "machine": _machine()}
    if store:
        found["stores"] = {place: _reach(place) for place in store}
    warnings = _machine_warnings(found)
    if address is not None:
        doors = _look(address)
        found["cluster"] = {k: v for k, v in asdict(doors).items() if k != "warnings"}
        warnings += [*doors.warnings, *_version_warning(doors.ray_version)]
    if json_:
        sys.stdout.write(json.dumps({**found, "warnings": warnings}, indent=1) + "\n")
    else:
        _show(found, warnings)
    raise Ended(WARNED if warnings else 0)


def _versions() -> dict[str, str | None]:
    from cifar_ray.models.backends import machine

    ours = {"cifar-ray": __version__, "python": platform.python_version()}
    return ours | {name: machine.installed_version(name) for name in PACKAGES}


def _machine() -> dict[str, Any]:
    import psutil

    from cifar_ray.models.backends import machine
    from cifar_ray.models.cache import cache_folder

    cache = cache_folder()
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": usable_cores(),
        "instruction_set": machine.detect_instruction_set(),
        "gpu": machine.gpu_name(),
        "memory_gib": round(psutil.virtual_memory().total / GIBIBYTE, 1),
        "memory_free_gib": round(psutil.virtual_memory().available / GIBIBYTE, 1),
        "cache": str(cache),
        "cache_disk_free_gib": round(shutil.disk_usage(there).free / GIBIBYTE, 1),
        "working_disk_free_gib": round(shutil.disk_usage(Path.cwd()).free / GIBIBYTE, 1),
    }


def _reach(place: str) -> str:
    """Say `reachable`, or what is in the way."""
    from cifar_ray.storage import open_store

    try:
        open_store(place).names("")
    except (CifarRayError, OSError) as error:
        return str(error)
    local = place.removeprefix("file://")
    if "://" not in local and not Path(local).expanduser().exists():
        return "is not there yet"
    return "reachable"


def _machine_warnings(found: dict[str, Any]) -> list[str]:
    machine = found["machine"]
    warnings = []
    if machine["memory_free_gib"] < LITTLE_MEMORY_GIB:
        warnings.append(f"Only {machine['memory_free_gib']} GiB of memory are free.")
    for name in ("cache", "working"):
        if machine[f"{name}_disk_free_gib"] < LITTLE_DISK_GIB:
            free = machine[f"{name}_disk_free_gib"]
            warnings.append(f"Only {free} GiB are free on the disk of the {name} folder.")
    for place, state in found.get("stores", {}).items():
        if state != "reachable":
            warnings.append(f"{place}: {state}")
    return warnings


def _look(address: str) -> "Doors":
    """See the doors as a stranger, and ask for the version with this user's token."""
    from cifar_ray.on_ray import doors
    from cifar_ray.on_ray.jobs import Jobs

    seen = doors.look(address)
    if seen.ray_version is not None:
        return seen
    try:
        version = Jobs(address).ray_version()
    except CifarRayError:
        # A cluster that is shut to this user too has no more to tell.
        return seen
    return doors.look(address, version)


def _version_warning(there: str | None) -> list[str]:
    from cifar_ray.config.cluster import RAY_VERSION

    if there in (None, RAY_VERSION):
        return []
    return [f"The cluster has Ray {there}, and this cifar-ray is made for {RAY_VERSION}."]


def _show(found: dict[str, Any], warnings: list[str]) -> None:
    console = Console(highlight=False)
    for title, values in found.items():
        table = Table(title, "", box=None, pad_edge=False)
        for name, value in values.items():
            shown = "–" if value is None else printable(str(value))
            table.add_row(Text(printable(name).replace("_", " ")), Text(shown))
        console.print(table)
        console.print()
    for warning in warnings:
        console.print(Text(f"Warning: {printable(warning)}", style="yellow"))
    if not warnings:
        console.print("Nothing to complain about.")
