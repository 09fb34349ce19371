"""What a command has to download before it begins, behind a bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cifar_ray.cli.boundary import console


@contextmanager
def download_bar(what: str, to: Console = console) -> Iterator[Callable[[int, int], None]]:
    """Yield what is to be told of bytes that are here and of all; nothing is shown before that."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=to,
        transient=True,
        disable=not to.is_terminal,
    )

    def show(done: int, total: int) -> None:
        if not bar.tasks:
            to.print(f"Downloading {what}, {total / 1e6:.0f} MB, once.")
            bar.start()
            bar.add_task(what, total=total)
        bar.update(bar.tasks[0].id, completed=done)

    try:
        yield show
    finally:
        bar.stop()


def bring(data: str) -> None:
    """Download DATA if it is `cifar10` and not here: once, before workers race for it."""
    if data != "cifar10":
        return
    from cifar_ray.training.data.sources import find_cifar10

    with download_bar("CIFAR-10") as show:
        find_cifar10(show)
