"""What the displays of several verbs have in common."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.text import Text

from cifar_ray.cli.boundary import console

LINE_INTERVAL_S = 10.0
"""Between two lines of progress where there is no terminal."""


@contextmanager
def shown_dashboard(wanted: bool, address: str | None) -> Iterator[None]:
    """Within the block, have a Ray of our own with its dashboard, if that is wanted, and say where.

    What runs in the block joins it. A cluster at `address` has its dashboard already.
    """
    if not wanted:
        yield
        return
    from cifar_ray.on_ray.session import ray_session

    with ray_session(address, dashboard=True) as session:
        if session.dashboard_url:
            console.print(
                Text(
                    f"Dashboard http://{session.dashboard_url} asks for the token in "
                    f"{session.token_path}; metrics http://{session.metrics_address}/metrics."
                )
            )
        yield


def counted_workers(number: int) -> str:
    """Return how many workers there are, in words."""
    return "1 worker" if number == 1 else f"{number} workers"


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 60:
        return f"{minutes:.0f} min"
    return f"{int(minutes // 60)} h {int(minutes % 60)} min"
