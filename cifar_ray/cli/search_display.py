"""The live table of a search, and a line now and then where there is no terminal."""

import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cifar_ray.cli.display import LINE_INTERVAL_S, duration
from cifar_ray.config.spaces import describe

if TYPE_CHECKING:
    from cifar_ray.training.search.record import Records, TrialRecord

REDRAW_INTERVAL_S = 0.5
MAX_ROWS = 12
WORDS = {
    "running": "running",
    "stopped": "stopped early",
    "budget": "ended by --max-epochs",
    "failed": "failed",
}


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
    accuracy = "" if trial.accuracy is None else f"{trial.accuracy:.2%}"
    return (
        Text(str(trial.number)),
        Text(trial.state),
        Text(str(len(trial.history))),
        Text(accuracy),
        Text(describe(trial.parameters), overflow="ellipsis", no_wrap=True),
    )
