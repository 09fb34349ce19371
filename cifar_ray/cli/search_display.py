"""What a search shows: what it would try, how far it is, and what came of it."""

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cifar_ray.cli.display import LINE_INTERVAL_S, duration
from cifar_ray.errors import printable

if TYPE_CHECKING:
    from cifar_ray.config.search import SearchSpec
    from cifar_ray.training.search.record import Records, TrialRecord

NUM_PLANNED = 10
"""So many trials a dry run prints."""
REDRAW_INTERVAL_S = 0.5
MAX_ROWS = 12
WORDS = {
    "running": "running",
    "stopped": "stopped early",
    "budget": "ended by --max-epochs",
    "failed": "failed",
}


def show_planned(spec: "SearchSpec", as_json: bool) -> None:
    """Print the first trials of a search, as they would run."""
    from cifar_ray.config.search import planned
    from cifar_ray.config.spaces import show

    plan = planned(spec)[:NUM_PLANNED]
    if as_json:
        sys.stdout.write(json.dumps(plan, indent=1) + "\n")
        return
    table = Table("trial", *spec.space.fields, box=None, pad_edge=False)
    for number, parameters in enumerate(plan):
        table.add_row(str(number), *(Text(show(value)) for value in parameters.values()))
    Console().print(table)
    more = spec.num_trials - len(plan)
    later = ", found from the results of earlier ones" if spec.search == "tpe" else ""
    Console().print(
        Text(
            f"{len(plan)} of {spec.num_trials} trials of {spec.config.recipe}, as they would run"
            + (f"; {more} more{later}." if more else "."),
            style="dim",
        )
    )


class SearchDisplay:
    """Shows trials, their states and accuracy, the best one so far, and the time left."""

    def __init__(self, console: Console, records: "Records") -> None:
        self.console = console
        self.started = time.monotonic()
        self.epochs_before = records.epochs_trained
        self.due = 0.0
        self.live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> "SearchDisplay":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def update(self, records: "Records") -> None:
        """Show the search as it is now, unless it was shown just before."""
        now = time.monotonic()
        if now < self.due:
            return
        line = self._line(records, now - self.started)
        if self.console.is_terminal:
            self.due = now + REDRAW_INTERVAL_S
            self.live.update(Group(_table(records), Text(line)), refresh=True)
        else:
            self.due = now + LINE_INTERVAL_S
            self.console.print(Text(line))

    def _line(self, records: "Records", seconds: float) -> str:
        states: list[str] = [trial.state for trial in records.trials.values()]
        ended = sum(state != "running" for state in states)
        parts = [f"{ended}/{records.spec.num_trials} trials ended"]
        parts += [f"{states.count(s)} {word}" for s, word in WORDS.items() if s in states]
        if records.spec.epoch_budget is not None:
            parts.append(f"{records.epochs_trained} of at most {records.spec.epoch_budget} epochs")
        best = records.best()
        if best is not None:
            parts.append(f"best {best.accuracy:.2%} (trial {best.number})")
        epochs = records.epochs_trained - self.epochs_before
        if epochs:
            left = seconds / epochs * epochs_left(records)
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)


def epochs_left(records: "Records") -> float:
    """Return the epochs that are still to be trained, if later trials are as long as ended ones."""
    planned = records.spec.max_epochs
    ended = [len(trial.history) for trial in records.trials.values() if trial.has_ended]
    mean = sum(ended) / len(ended) if ended else planned
    running = [len(trial.history) for trial in records.trials.values() if not trial.has_ended]
    new = records.spec.num_trials - len(records.trials)
    left = sum(max(1.0, mean - done) for done in running) + new * mean
    if records.spec.epoch_budget is None:
        return left
    return min(left, max(0, records.spec.epoch_budget - records.epochs_trained))


def _table(records: "Records") -> Table:
    """Return the running trials and the best of the others."""
    trials = sorted(
        records.trials.values(), key=lambda t: (t.has_ended, -(t.accuracy or 0.0), t.number)
    )
    best = records.best()
    table = Table("trial", "state", "epoch", "accuracy", "parameters", box=None, pad_edge=False)
    for trial in trials[:MAX_ROWS]:
        style = "bold green" if best is not None and trial.number == best.number else ""
        table.add_row(*_cells(trial), style=style)
    if len(trials) > MAX_ROWS:
        table.add_row("", f"{len(trials) - MAX_ROWS} more", style="dim")
    return table


def _cells(trial: "TrialRecord") -> tuple[Text, ...]:
    from cifar_ray.config.spaces import describe

    accuracy = "" if trial.accuracy is None else f"{trial.accuracy:.2%}"
    return (
        Text(str(trial.number)),
        Text(trial.state),
        Text(str(len(trial.history))),
        Text(accuracy),
        Text(describe(trial.parameters), overflow="ellipsis", no_wrap=True),
    )


def why_nothing(records: "Records") -> str:
    """Return what is told of a search without a best trial."""
    failed = [trial for trial in records.trials.values() if trial.state == "failed"]
    first = f" Trial {failed[0].number}: {failed[0].error}" if failed else ""
    return f"No trial of {records.spec.num_trials} could be trained.{first}"


def show_best(
    records: "Records", best: "TrialRecord", metrics: dict[str, Any] | None, as_json: bool
) -> None:
    """Print what came of a search; `metrics` are its bundle's, if it was asked for one."""
    if as_json:
        sys.stdout.write(json.dumps(_summary(records, best, metrics), indent=1) + "\n")
        return
    from cifar_ray.config.spaces import show
    from cifar_ray.training.search.refit import refit_spec

    spec, trials = records.spec, list(records.trials.values())
    output = Console(highlight=False)
    for trial in trials:
        if trial.state == "failed":
            output.print(Text(f"Trial {trial.number} failed: {printable(trial.error or '')}"))
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("best trial", f"{best.number} of {spec.num_trials}")
    table.add_row("validation accuracy", f"{best.accuracy:.2%}")
    if spec.epoch_budget is not None:
        cut = sum(trial.state == "budget" for trial in trials)
        used = f"{records.epochs_trained} of at most {spec.epoch_budget}"
        table.add_row("epochs", used + (f", which ended {cut} trials" if cut else ""))
    for field, value in best.parameters.items():
        table.add_row(field, Text(show(value)))
    if metrics is not None:
        table.add_row(f"{metrics['evaluated_on']} accuracy", f"{metrics['accuracy']:.2%}")
    output.print(table)
    output.print(Text(f"Report  {records.run.report}"))
    if metrics is not None:
        output.print(Text(f"Bundle  {records.run.bundle}"))
    elif not best.exploits:
        output.print(Text(f"Train it in full:  {refit_spec(records, best, 'cpu', 1).command}"))


def _summary(
    records: "Records", best: "TrialRecord", metrics: dict[str, Any] | None
) -> dict[str, Any]:
    trials = records.trials.values()
    return {
        "best_trial": best.number,
        "parameters": best.parameters,
        "validation_accuracy": best.accuracy,
        "trials": {
            state: sum(trial.state == state for trial in trials)
            for state in ("finished", "stopped", "budget", "failed")
        },
        "epochs": records.epochs_trained,
        "max_epochs": records.spec.epoch_budget,
        "refit": metrics,
    }
