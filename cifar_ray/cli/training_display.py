"""What a training run shows on a terminal: live progress, and what came of it."""

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from cifar_ray.cli.boundary import console
from cifar_ray.cli.display import duration

if TYPE_CHECKING:
    from cifar_ray.config.training import TrainingSpec
    from cifar_ray.training.epoch import EpochRow, Step


class TrainingDisplay:
    """A bar an epoch: loss, last accuracy, images/s, time left; and a line for each epoch."""

    def __init__(self, spec: "TrainingSpec") -> None:
        self.epochs = spec.config.epochs
        self.bar = Progress(
            TextColumn("{task.fields[text]}"),
            BarColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, text="reading images")
        self.seconds_an_epoch = 0.0
        self.accuracy = ""

    def __enter__(self) -> "TrainingDisplay":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def on_step(self, step: "Step") -> None:
        """Show a step."""
        share = step.step / step.num_steps
        whole = step.seconds / share
        left = whole * (1 - share) + (self.epochs - step.epoch - 1) * (
            self.seconds_an_epoch or whole
        )
        self.bar.update(
            self.task,
            total=step.num_steps,
            completed=step.step,
            text=f"epoch {step.epoch + 1}/{self.epochs} · loss {step.loss:.3f} · {self.accuracy}"
            f"{step.images_per_second:,.0f} images/s · {duration(left)} left",
        )

    def on_epoch(self, row: "EpochRow") -> None:
        """Print a line for an epoch."""
        self.seconds_an_epoch = row.seconds
        self.accuracy = f"validation {row.validation_accuracy:.2%} · "
        self.bar.console.print(
            Text(
                f"epoch {row.epoch + 1}/{self.epochs}: loss {row.train_loss:.3f}, validation "
                f"{row.validation_accuracy:.2%} (loss {row.validation_loss:.3f}), "
                f"{row.images_per_second:,.0f} images/s, {duration(row.seconds)}"
            )
        )


def show_metrics(spec: "TrainingSpec", metrics: dict[str, Any], as_json: bool) -> None:
    """Print what a finished run reached, and what to do with its bundle."""
    if as_json:
        sys.stdout.write(json.dumps(metrics, indent=2) + "\n")
        return
    output = Console(highlight=False)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("evaluated on", f"{metrics['num_images']:,} {metrics['evaluated_on']} images")
    for name in ("accuracy", "precision_macro", "recall_macro", "f1_macro"):
        table.add_row(name, f"{metrics[name]:.2%}")
    if "accuracy_with_views" in metrics:
        table.add_row("accuracy over views", f"{metrics['accuracy_with_views']:.2%}")
    table.add_row("loss", f"{metrics['loss']:.4f}")
    table.add_row("calibration error", f"{metrics['ece']:.2%}")
    if copies := metrics.get("duplicates", {}).get("copies"):
        left_out = metrics["duplicates"]["left_out"]
        table.add_row("equal images", f"{copies:,}, {left_out:,} left out to be in one split alone")
    output.print(table)
    output.print(Text(f"Bundle  {spec.run}/bundle"))
    output.print(
        Text(f"Label with it:  cifar-ray predict FOLDER --out DEST --model {spec.run}/bundle")
    )
