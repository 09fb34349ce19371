"""`cifar-ray serve`: labels over HTTP, with a web page."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cifar_ray.cli.boundary import console
from cifar_ray.cli.connection import HERE, chosen_address
from cifar_ray.cli.options import Device, Precision
from cifar_ray.config.addresses import LOOPBACK, SERVE_PORT, answered_names, is_loopback
from cifar_ray.config.machine import usable_cores
from cifar_ray.errors import InputError, printable

if TYPE_CHECKING:
    from cifar_ray.config.serving import ServerOptions, ServiceConfig
    from cifar_ray.models.bundle import Bundle

EXAMPLES = """
[bold]Examples[/bold]

  cifar-ray serve

  cifar-ray serve runs/mine/bundle photos=torchvision:resnet50 --port 8080

  cifar-ray serve --host 0.0.0.0 --api-key-file keys.txt

  curl -F image=@frog.jpg http://127.0.0.1:8000/v1/predict
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("serve", epilog=EXAMPLES)(serve)


def serve(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE",
            help="Bundles' folders or torchvision:NAME, as NAME=BUNDLE to name them in requests;"
            " the first is the default. Without any: the model in the box.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = LOOPBACK,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = SERVE_PORT,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that label side by side.")] = 1,
    device: Device = "auto",
    precision: Precision = "auto",
    address: Annotated[str | None, typer.Option(help="A Ray cluster's address.")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Let only those in who have one of its keys, a line each.")
    ] = None,
    allow_urls_from: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Fetch images from here, https://host[:port]."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Let web pages from here read answers (CORS)."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Answer to this name, as behind a proxy, and then to no other"
            " but this machine's own.",
        ),
    ] = None,
) -> None:
    """Label images over HTTP and on a web page, until Ctrl-C."""
    from cifar_ray.config.execution import ExecutionRequest
    from cifar_ray.config.serving import ServerOptions, ServiceConfig

    address = chosen_address(address)
    options = ServerOptions(host=host, port=port, replicas=replicas, address=address)
    models = _models(bundles or [])
    threads = max(1, usable_cores() // replicas) if address in HERE else 1
    config = ServiceConfig(
        models={name: str(bundle.path.absolute()) for name, bundle in models.items()},
        default_model=next(iter(models)),
        execution=ExecutionRequest(device=device, precision=precision, threads=threads),
        api_key_digests=_keys(api_key_file),
        url_origins=_origins("--allow-urls-from", allow_urls_from),
        cors_origins=_origins("--allow-origin", allow_origin),
        allowed_hosts=answered_names(host, allow_host or ()),
    )
    _run(config, options, models)


def _run(config: "ServiceConfig", options: "ServerOptions", models: dict[str, "Bundle"]) -> None:
    console.print("Starting …")
    from cifar_ray.on_ray.serving.running import running_service

    with running_service(config, options) as service:
        for name, bundle in models.items():
            default = ", the default" if name == config.default_model else ""
            classes = f"{len(bundle.spec.labels)} classes"
            console.print(Text(f"Model {printable(name)}: {bundle.id}, {classes}{default}."))
        if not is_loopback(options.host) and not config.api_key_digests:
            console.print(
                Text(
                    "Warning: everybody who reaches this address is answered. --api-key-file "
                    "lets in whom you gave a key.",
                    style="yellow",
                )
            )
        console.print(Text(f"Page      {service.url}/"))
        console.print(Text(f"HTTP API  {service.url}/v1/predict, described in /openapi.json"))
        console.print("Ctrl-C ends it.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            console.print("Ending …")


def _models(arguments: list[str]) -> dict[str, "Bundle"]:
    """Return the bundles by the names that requests give."""
    from cifar_ray.models.opening import open_bundle
    from cifar_ray.models.torchvision_table import PREFIX

    models: dict[str, Bundle] = {}
    for argument in arguments or [""]:
        name, place = _named(argument)
        bundle = open_bundle(place or None)
        name = name or bundle.spec.network.removeprefix(PREFIX)
        if name in models:
            raise InputError(
                f"Two models would be called {printable(name)}. Name them: NAME={printable(place)}."
            )
        models[name] = bundle
    return models


def _named(argument: str) -> tuple[str, str]:
    """Return name and place of NAME=BUNDLE; a place, which may have a `=` too, has no name."""
    name, separator, place = argument.partition("=")
    if not separator or "/" in name or Path(argument).expanduser().exists():
        return "", argument
    return name, place


def _keys(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    from cifar_ray.config.serving import key_digests

    try:
        return key_digests(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read --api-key-file {printable(str(path))}: {error}.") from error


def _origins(option: str, values: list[str] | None) -> tuple[str, ...]:
    from cifar_ray.config.serving import origin_of

    try:
        return tuple(origin_of(value, exact=True) for value in values or ())
    except ValueError as error:
        raise InputError(f"{option}: {error}.") from error
