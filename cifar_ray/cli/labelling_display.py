"""What a labelling run shows: what it would do, its model, how far it is, and what came of it."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from cifar_ray.cli.boundary import console
from cifar_ray.cli.display import LINE_INTERVAL_S, duration

if TYPE_CHECKING:
    from cifar_ray.prediction.forecasting.dry_run import Preview
    from cifar_ray.prediction.forecasting.forecast import Compared
    from cifar_ray.prediction.pipeline import Display, RunProgress
    from cifar_ray.prediction.plan import Plan
    from cifar_ray.prediction.receipt import Receipt

STAGE_BAR_WIDTH = 40


def show_preview(preview: "Preview", destination: str, as_json: bool) -> None:
    """Print what a run would do."""
    if as_json:
        sys.stdout.write(preview.model_dump_json(indent=2) + "\n")
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("model", Text(preview.model))
    table.add_row("classes", Text(preview.classes))
    table.add_row("found", f"{preview.found:,}")
    for kind, number in preview.skipped.items():
        table.add_row(Text(f"  skipped {kind}"), f"{number:,}")
    table.add_row("to label", f"{preview.listed:,} images, {preview.image_bytes / 1e6:,.1f} MB")
    table.add_row("parts", Text(f"{preview.parts:,} below {destination}/predictions"))
    if preview.parts_done:
        done = f"{preview.parts_done:,} parts, {preview.images_done:,} images"
        table.add_row("done already", done)
    table.add_row("output", f"about {preview.output_bytes / 1e6:,.1f} MB")
    table.add_row("time", f"about {duration(preview.seconds)} ({preview.basis})")
    output = Console(highlight=False)
    output.print(table)
    for warning in preview.warnings:
        output.print(Text(f"Warning: {warning}", style="yellow"))
    if preview.complete:
        output.print(Text(f"{destination} is complete already; nothing to do."))
    output.print("Nothing was written.")


def show_model(plan: "Plan") -> None:
    """Print the model, how it computes, and what there is to warn of before it begins."""
    spec, execution = plan.bundle.spec, plan.record.execution
    names = ", ".join(spec.labels[:10]) + (" …" if len(spec.labels) > 10 else "")
    line = (
        f"Model {plan.bundle.id}: {len(spec.labels)} classes ({names}), trained on "
        f"{spec.trained_on.dataset}; {execution.backend} {execution.precision} on "
        f"{execution.device}, batches of {execution.batch_size}."
    )
    console.print(Text(line))
    for warning in (*plan.record.warnings, *_cache_warning(plan)):
        console.print(Text(f"Warning: {warning}", style="yellow"))


def _cache_warning(plan: "Plan") -> Iterator[str]:
    from cifar_ray.models.cache import cache_fault

    if plan.record.execution.backend == "openvino" and (fault := cache_fault()):
        yield (
            f"Nothing can be kept in the cache {fault}. What is not in it, each worker makes anew; "
            "CIFAR_RAY_CACHE names another place."
        )


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


def show_receipt(receipt: "Receipt", destination: str, as_json: bool) -> None:
    """Print the counts of a finished run, and where its results are."""
    if as_json:
        sys.stdout.write(receipt.model_dump_json(indent=2) + "\n")
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("found", f"{receipt.found:,}")
    for kind, number in receipt.skipped.items():
        table.add_row(Text(f"  skipped {kind}"), f"{number:,}")
    table.add_row("listed", f"{receipt.listed:,}" + (" (partial)" if receipt.partial else ""))
    table.add_row("  ok", f"{receipt.ok:,}")
    for status, number in receipt.failed.items():
        table.add_row(f"  {status}", f"{number:,}")
    output = Console(highlight=False)
    output.print(table)
    for name, compared in (receipt.forecast or {}).items():
        output.print(Text(_comparison(name, compared)))
    output.print(Text(f"Rows    {destination}/predictions"))
    output.print(Text(f"Report  {destination}/report.html"))


def _comparison(name: str, compared: "Compared") -> str:
    planned = f"{compared.expected:,.4g}"
    if compared.low < compared.high:
        planned += f" ({compared.low:,.4g} to {compared.high:,.4g})"
    return f"Planned {name.replace('_', ' ')} {planned}, was {compared.actual:,.4g}"


def show_stages(stages: Mapping[str, float]) -> None:
    """Print where the time of all workers went."""
    table = Table("stage", "seconds, all workers", "share", "")
    total = sum(stages.values())
    for stage, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        bar = Bar(total, 0, seconds, width=STAGE_BAR_WIDTH)
        table.add_row(stage, f"{seconds:.2f}", f"{seconds / total:.0%}", bar)
    Console().print(table)
