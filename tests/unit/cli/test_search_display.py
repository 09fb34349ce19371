import io
from pathlib import Path

import pytest
from rich.console import Console

from cifar_ray.cli.search_display import MAX_ROWS, SearchDisplay, epochs_left
from cifar_ray.config.spaces import Parameters
from cifar_ray.training.search.record import Records
from tests.unit.training.search.recorded import ended, row, spec_of

PARAMETERS: Parameters = {
    "optimizer.learning_rate": 1e-3,
    "batch_size": 32,
    "augment.flip": "none",
}


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Of four trials one is finished, one stopped early, and one has just begun."""
    records = Records.load(spec_of(tmp_path, num_trials=4))
    ended(records, 0, 0.01, [0.3, 0.5, 0.6, 0.55])
    ended(records, 1, 0.02, [0.2])
    records.begin(2, PARAMETERS)
    return records


def shown(records: Records, is_terminal: bool) -> str:
    """Return what is printed when the third trial has trained its first epoch."""
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=150)
    with SearchDisplay(console, records) as display:
        records.add_row(2, row(0, 0.45))
        display.update(records)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_later_trials_are_thought_to_be_as_long_as_ended_ones(
    records: Records, tmp_path: Path
) -> None:
    assert epochs_left(Records.load(spec_of(tmp_path / "new"))) == 16 * 4
    records.add_row(2, row(0, 0.45))
    assert epochs_left(records) == (2.5 - 1) + 2.5
    for epoch in (1, 2):
        records.add_row(2, row(epoch, 0.45))
    assert epochs_left(records) == 1 + 2.5, "what is running has an epoch to go, at least"


def test_without_a_terminal_a_line_says_states_the_best_and_the_time_left(
    records: Records,
) -> None:
    line = shown(records, is_terminal=False)
    assert "2/4 trials ended · 1 running · 1 stopped early · best 60.00% (trial 0)" in line
    assert "left" in line
    assert "batch_size" not in line


def test_a_bound_on_epochs_is_shown_and_ends_the_time_left(tmp_path: Path) -> None:
    records = Records.load(spec_of(tmp_path, num_trials=4, epoch_budget=8))
    ended(records, 0, 0.01, [0.3, 0.5, 0.6, 0.55])
    records.begin(2, PARAMETERS)
    assert "5 of at most 8 epochs" in shown(records, is_terminal=False)
    assert epochs_left(records) == 3


def test_on_a_terminal_a_table_shows_running_trials_first_and_then_the_best(
    records: Records,
) -> None:
    screen = shown(records, is_terminal=True)
    places = [screen.index(text) for text in ("parameters", "45.00%", "60.00%", "20.00%")]
    assert places == sorted(places)
    assert "batch_size=32" in screen


def test_of_many_trials_the_table_shows_some(tmp_path: Path) -> None:
    records = Records.load(spec_of(tmp_path))
    for number in range(MAX_ROWS + 1):
        ended(records, number, 0.01, [0.2 + number / 100])
    records.begin(MAX_ROWS + 1, PARAMETERS)
    records.begin(MAX_ROWS + 2, PARAMETERS)
    console = Console(file=io.StringIO(), force_terminal=True, width=150)
    with SearchDisplay(console, records) as display:
        display.update(records)
    assert isinstance(console.file, io.StringIO)
    assert "3 more" in console.file.getvalue()
