"""The search report in a real browser: on a phone and a desk, sorted, and with hostile values."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cifar_ray.training.search.record import Records
from cifar_ray.training.search.report import write_report
from tests.browser.framed import look_at, served
from tests.unit.training.search.recorded import ended, row, spec_of

pytestmark = pytest.mark.browser

LOOK = """(() => {
  const rows = () => [...page.querySelectorAll(".trials tbody tr")];
  const column = () => rows().map((row) => row.cells[0].innerText);
  const buttons = [...page.querySelectorAll(".trials button")];
  const first = column();
  buttons[0]?.click();
  const down = column();
  buttons[0]?.click();
  return {
    width: page.documentElement.scrollWidth,
    hacked: window.hacked === true,
    scripts: page.scripts.length,
    buttons: buttons.length,
    curves: page.querySelectorAll("svg g").length,
    first, down, up: column(),
    headings: [...page.querySelectorAll("h2")].map((heading) => heading.textContent),
  };
})()"""
NO_SCRIPTS = 'sandbox="allow-same-origin"'
HOSTILE = '<img src=x onerror="parent.hacked = true"><script>parent.hacked = true</script>'
NUM_TRIALS = 12
Look = Callable[..., dict[str, Any]]


def write_search(folder: Path) -> None:
    """Write a report with all that one can hold."""
    folder.mkdir()
    spec = spec_of(folder, data="/" + "long-name" * 30, settings=(HOSTILE,))
    records = Records.load(spec)
    for number in range(NUM_TRIALS - 1):
        accuracies = [0.3 + 0.1 * epoch - 0.01 * number for epoch in range(4 - number % 3)]
        ended(records, number, 10 ** (-3 + number / 10), accuracies)
    records.exploit(0, 1, 3, records.trials[2].parameters)
    records.add_row(0, row(3, 0.5))
    last = NUM_TRIALS - 1
    records.begin(last, {**records.trials[0].parameters, "augment.flip": HOSTILE})
    records.run.trial(last).failure.write_text(json.dumps({"error": HOSTILE * 5}))
    records.end(last)
    write_report(records)


@pytest.fixture
def look(chromium: str, tmp_path: Path) -> Iterator[Look]:
    folder = tmp_path / "search"
    write_search(folder)
    with served(folder) as url:
        yield partial(look_at, chromium, folder, url, LOOK)


@pytest.mark.parametrize("width", [360, 1200])
def test_the_report_fits_its_window(look: Look, width: int) -> None:
    page = look(width)
    assert page["width"] <= width
    assert page["curves"] == NUM_TRIALS - 1
    wanted = {"What mattered", "What early stopping saved", "Lineage", "Failed trials"}
    assert wanted <= set(page["headings"])


def test_the_table_is_sorted_by_a_click_and_values_run_nothing(look: Look) -> None:
    page = look(800)
    numbers = [str(number) for number in range(NUM_TRIALS)]
    assert page["buttons"] == 8
    assert page["down"] == numbers[::-1]
    assert page["up"] == numbers
    assert (page["hacked"], page["scripts"]) == (False, 1)


def test_without_scripts_the_table_stands_there_best_first(look: Look) -> None:
    page = look(800, NO_SCRIPTS)
    assert page["buttons"] == 0
    assert len(page["first"]) == NUM_TRIALS
    assert page["first"][-1] == str(NUM_TRIALS - 1), "the failed one is last"
