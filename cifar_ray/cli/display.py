"""Live progress on a terminal, and a line now and then where there is none."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from cifar_ray.cli.boundary import console

if TYPE_CHECKING:
    from cifar_ray.prediction.pipeline import Display, RunProgress

LINE_INTERVAL_S = 10.0


class LabellingDisplay:
    """Shows a labelling run: images, images/s, MB/s, failures, time left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started: float | None = None
        self.line_due = 0.0
        self.said: set[str] = set()
        self.bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, text="starting")

    @contextmanager
    def live(self) -> Iterator["Display"]:
        """Show progress within the block."""
        with self.bar:
            yield self.update

    def update(self, progress: "RunProgress") -> None:
        """Show the run as it is now."""
        now = time.monotonic()
        if self.started is None:
            self.started = now
        for warning in (progress.note, progress.warning):
            if warning and warning not in self.said:
                self.said.add(warning)
                self.bar.console.print(Text(f"Warning: {warning}", style="yellow"))
        text = self._text(progress, now - self.started)
        if self.console.is_terminal:
            total = progress.images_listed if progress.listing_ended else None
            self.bar.update(self.task, total=total, completed=progress.rows, text=text)
        elif now >= self.line_due:
            self.line_due = now + LINE_INTERVAL_S
            self.console.print(Text(text))

    @staticmethod
    def _text(progress: "RunProgress", seconds: float) -> str:
        listed = progress.images_listed
        of = f"{min(progress.rows, listed):,}/{'' if progress.listing_ended else '~'}{listed:,}"
        parts = [f"{of} images"]
        if progress.images_before:
            parts.append(f"{progress.images_before:,} done before")
        if seconds > 0 and progress.rows:
            rate = progress.rows / seconds
            parts.append(f"{rate:,.0f} images/s")
            parts.append(f"{progress.image_bytes / seconds / 1e6:.1f} MB/s")
            if progress.listing_ended:
                parts.append(f"{duration(max(0.0, (listed - progress.rows) / rate))} left")
        parts.append(f"{progress.failed:,} failed")
        if progress.pause is not None:
            parts.append(f"PAUSED for {progress.pause.delay_s:.0f} s: {progress.pause.reason}")
        return " · ".join(parts)


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


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 60:
        return f"{minutes:.0f} min"
    return f"{int(minutes // 60)} h {int(minutes % 60)} min"
