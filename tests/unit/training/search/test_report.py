import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cifar_ray.training.search.budget import EpochBudget
from cifar_ray.training.search.record import Records
from cifar_ray.training.search.report import render, saving, write_report
from tests.unit.training.search.recorded import ended, row, spec_of

HOSTILE = "<script>alert(1)</script>\x1b[31m\"'"


class Elements(HTMLParser):
    """Collects the elements of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.found)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    records = Records.load(spec_of(tmp_path))
    for number in range(8):
        length = 4 if number < 3 else 1
        ended(
            records,
            number,
            0.001 * (number + 1),
            [0.2 + 0.05 * number + 0.01 * e for e in range(length)],
        )
    return records


def test_the_page_shows_every_trial_and_what_was_saved(records: Records) -> None:
    page = render(records)
    elements = Elements(page)
    assert elements.count("polyline") == 8
    assert elements.count("tr") >= 9
    assert "55.00 % </b>" in page.replace("</b>", " </b>")
    assert (saving(records).epochs_trained, saving(records).epochs_planned) == (17, 32)
    assert saving(records).seconds_saved == pytest.approx(150.0)
    assert "optimizer.learning_rate" in page
    assert "fANOVA" in page


def test_the_page_runs_its_own_script_only_and_asks_for_nothing(records: Records) -> None:
    page = render(records)
    elements = Elements(page)
    script = re.search("<script>(.*)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert elements.count("script") == 1
    assert not any({"src", "href"} & set(attributes) for _, attributes in elements.found)
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)


def test_what_others_wrote_is_text(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, data=f"/tmp/{HOSTILE}", settings=(f"precision={HOSTILE}",))
    records = Records.load(spec)
    records.begin(0, {"optimizer.learning_rate": 0.1, "batch_size": 32, "augment.flip": "none"})
    records.run.trial(0).failure.write_text(json.dumps({"error": HOSTILE}))
    records.end(0)
    page = render(records)
    assert Elements(page).count("script") == 1
    assert "alert(1)" in page
    assert "\x1b" not in page
    assert "\\x1b[31m" in page


def test_a_bound_on_epochs_is_told_with_what_it_ended(tmp_path: Path) -> None:
    records = Records.load(spec_of(tmp_path, epoch_budget=5))
    ended(records, 0, 0.01, [0.3, 0.5, 0.6, 0.55])
    for number, accuracies in ((1, [0.4]), (2, [])):
        budget = EpochBudget.of(records.spec, number)
        budget.run.epochs.write_text(
            json.dumps({f"{number:04d}": {"begun": 5, "open": False, "refused": True}})
        )
        ended(records, number, 0.02, accuracies)
    page = render(records)
    assert "<b>5</b> of at most 5 epochs" in page
    assert "they did not suffice for 2 trials, of which 1 got none" in page
    assert saving(records).epochs_saved == 0, "a trial that was cut is not spared"


def test_a_lineage_names_donor_and_parameters(tmp_path: Path) -> None:
    records = Records.load(spec_of(tmp_path, search="pbt", scheduler="none"))
    parameters = {"optimizer.learning_rate": 0.01, "batch_size": 32, "augment.flip": "none"}
    for number in (0, 1):
        records.begin(number, parameters)
        records.add_row(number, row(0, 0.5 - number / 10))
    records.exploit(1, 0, 1, {**parameters, "batch_size": 64})
    page = render(records)
    assert "trial 0 as of epoch 1" in page
    assert "batch_size=64" in page


def test_a_search_without_any_epoch_still_has_a_page(tmp_path: Path) -> None:
    records = Records.load(spec_of(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    write_report(records)
    assert "0</b> of 16 trials" in records.run.report.read_text()
