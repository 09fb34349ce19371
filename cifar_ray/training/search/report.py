"""`report.html` of a search: one page that needs no other file, and reads without its script.

The page allows itself one script by its digest (which sorts the table) and no request.
"""

import base64
import hashlib
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from cifar_ray.config.spaces import describe, show
from cifar_ray.pages import page_environment
from cifar_ray.training.search.proposals import importance
from cifar_ray.training.search.record import Records, TrialRecord

TEMPLATE = "report.html.jinja"
SCRIPT = "sort.js"
WIDTH, HEIGHT = 640, 300
NUM_GRID_LINES = 4


@dataclass(frozen=True, slots=True)
class Curve:
    """A trial's validation accuracy by epoch, as an SVG polyline's points."""

    number: int
    state: str
    points: str
    end: tuple[float, float]
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves in a frame: accuracy upwards from `low` to `high`, epochs to the right."""

    curves: list[Curve]
    low: float
    high: float
    num_epochs: int
    lines: list[tuple[float, str]]
    """Heights of horizontal lines, with what they stand for."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What stopping trials early saved."""

    epochs_trained: int
    epochs_planned: int
    seconds_trained: float
    seconds_saved: float
    """At each stopped trial's own pace."""

    @property
    def epochs_saved(self) -> int:
        """Epochs that stopped trials would have gone on for."""
        return self.epochs_planned - self.epochs_trained


def write_report(records: Records) -> None:
    """Write the page, atomically."""
    path = records.run.report
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(render(records), encoding="utf-8")
    temporary.replace(path)


def render(records: Records) -> str:
    """Return the page."""
    trials = sorted(
        records.trials.values(),
        key=lambda t: (t.state == "failed", -(t.accuracy or -1.0), t.number),
    )
    environment = _environment()
    script = environment.loader.get_source(environment, SCRIPT)[0]  # type: ignore[union-attr]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(TEMPLATE).render(
        spec=records.spec,
        folder=Path(records.spec.run).name,
        trials=trials,
        best=records.best(),
        fields=list(records.spec.space.fields),
        chart=chart(trials, records.best()),
        width=WIDTH,
        height=HEIGHT,
        importance=importance(records) if records.spec.search != "pbt" else None,
        saving=saving(records),
        exploits=[(trial, exploit) for trial in trials for exploit in trial.exploits],
        cut=[trial for trial in trials if trial.state == "budget"],
        failed=[trial for trial in trials if trial.state == "failed"],
        script=Markup(script),  # our own file
        script_digest=digest,
    )


def saving(records: Records) -> Saving:
    """Count what trials were trained for, and what those stopped early were spared."""
    trained = planned = 0
    seconds = saved = 0.0
    for trial in records.trials.values():
        epochs = trial.epochs_trained
        whole = records.spec.epochs_of(trial.parameters)
        stopped = trial.state == "stopped" and epochs
        trained += epochs
        planned += whole if stopped else epochs
        seconds += trial.seconds
        saved += trial.seconds / epochs * (whole - epochs) if stopped else 0.0
    return Saving(trained, planned, seconds, saved)


def chart(trials: list[TrialRecord], best: TrialRecord | None) -> Chart | None:
    """Return the learning curves, the best one last and so on top; None without any epoch."""
    values = [row["validation_accuracy"] for trial in trials for row in trial.history]
    if not values:
        return None
    low, high = floor(20 * min(values)) / 20, ceil(20 * max(values)) / 20
    if high == low:
        low, high = max(0.0, low - 0.05), min(1.0, high + 0.05)
    num_epochs = int(max(row["epoch"] for trial in trials for row in trial.history)) + 1

    def place(row: dict[str, float]) -> tuple[float, float]:
        x = WIDTH * row["epoch"] / max(1, num_epochs - 1)
        return x, HEIGHT * (high - row["validation_accuracy"]) / (high - low)

    curves = []
    for trial in reversed(trials):
        if not trial.history:
            continue
        places = [place(row) for row in trial.history]
        state = "best" if best is not None and trial.number == best.number else trial.state
        curves.append(
            Curve(
                trial.number,
                state,
                " ".join(f"{x:.1f},{y:.1f}" for x, y in places),
                places[-1],
                f"trial {trial.number}, {trial.state}: {trial.accuracy:.2%}; "
                + describe(trial.parameters),
            )
        )
    curves.sort(key=lambda curve: curve.state == "best")
    steps = [low + (high - low) * i / NUM_GRID_LINES for i in range(NUM_GRID_LINES + 1)]
    lines = [(HEIGHT * (high - step) / (high - low), f"{100 * step:.3g} %") for step in steps]
    return Chart(curves, low, high, num_epochs, lines)


def _environment() -> Environment:
    environment = page_environment("cifar_ray.training.search")
    environment.filters["show"] = show
    environment.filters["minutes"] = _minutes
    environment.filters["describe"] = describe
    return environment


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
