"""The report page of a labelling run."""

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifar_ray.errors import printable
from cifar_ray.prediction.reporting.report import Speed, bars, report_page
from cifar_ray.prediction.reporting.tally import (
    BATCH_ROWS,
    EXAMPLES_A_LABEL,
    NUM_DOUBTFUL,
    Place,
    Tally,
    tally_failures,
    tally_rows,
)
from cifar_ray.runs import LabellingRun
from tests.unit.prediction.finished_run import LABELS, FinishedRun, finish_run

SPEED = Speed(images=24, image_bytes=3_000_000, seconds=2.0, stage_seconds={"model": 1.5})
HOSTILE_NAMES = (
    "<script>alert(1)</script>.jpg",
    '"><img src=x onerror=alert(2)>.jpg',
    "'; alert(3) {{ 7 * 7 }} &lt;.jpg",
    "\x1b[2J\x07\u202egpj.exe\n.jpg",
)


class Page(HTMLParser):
    """What a browser would make of the page: elements with attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.pre: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "pre":
            self.pre.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.pre and self.lasttag == "pre":
            self.pre[-1] += data

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write(run: FinishedRun, speed: Speed = SPEED) -> Page:
    page = report_page(run.store, run.source, run.record, run.spec, run.receipt, speed)
    run.store.write(LabellingRun.REPORT, page)
    return Page((run.store.root / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def run(drawn_images: Path, tmp_path: Path) -> FinishedRun:
    """A run over 24 images, of which two are broken, and two files that are no images."""
    (drawn_images / "a" / "empty.jpg").touch()
    (drawn_images / "broken.jpg").write_text("no image")
    (drawn_images / "notes.txt").touch()
    (drawn_images / "movie.mp4").touch()
    return finish_run(drawn_images, tmp_path / "out", warnings=("These are <drawings>.",))


def test_page_shows_counts_warnings_model_and_speed(run: FinishedRun) -> None:
    page = write(run)
    text = " ".join(page.text.split())
    for part in (
        *("24 of 26 images labelled", "28 files found", "24 labelled", "2 failed (7.7 %)"),
        *("2 skipped", ".mp4 1", ".txt 1", "These are <drawings>."),
        *("cnn-122k-0", "drawn images, 1,200 images", "12 images/s, 1.5 MB/s", "model 1.50 s"),
    ):
        assert part in text


def test_page_says_when_earlier_commands_did_the_work(run: FinishedRun) -> None:
    assert "by earlier commands" in write(run).text
    nothing = Speed(images=0, image_bytes=0, seconds=0.1, stage_seconds={})
    assert "found every image labelled" in write(run, nothing).text


def test_page_needs_no_other_file_and_runs_no_script(run: FinishedRun) -> None:
    page = write(run)
    html = (run.store.root / "report.html").read_text(encoding="utf-8")
    assert page.having("script") == page.having("link") == page.having("a") == []
    assert all(str(image["src"]).startswith("data:image/jpeg;") for image in page.having("img"))
    assert "url(" not in html
    assert "//" not in re.sub(r'"data:image/jpeg;base64,[^"]*"', "", html)
    policies = [m["content"] for m in page.having("meta") if m.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file names")
def test_names_of_files_and_labels_are_shown_as_text(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    plain = {"html", "body", "img", "figure"}
    for number, name in enumerate(HOSTILE_NAMES):
        (source / name).parent.mkdir(exist_ok=True)
        (source / f"broken {name}").parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(source / name)
        (source / f"broken {name}").write_text(str(number))
    labels = ("<script>alert(4)</script>", "a & b", "plain")
    page = write(finish_run(source, tmp_path / "out", labels=labels, warnings=HOSTILE_NAMES))

    tags = {tag for tag, _ in page.elements}
    assert plain <= tags
    assert "script" not in tags
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert len(page.having("img")) == len(page.having("figure"))
    shown = "".join(
        [page.text, *(str(value) for _, attrs in page.elements for value in attrs.values())]
    )
    assert not [c for c in shown if not c.isprintable() and c != "\n"]
    assert r"\x1b[2J\x07\u202egpj.exe\n.jpg" in page.text
    assert {str(image["alt"]) for image in page.having("img")} == set(map(printable, HOSTILE_NAMES))
    assert HOSTILE_NAMES[0] in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "<script>alert(4)</script>" in page.text


def test_contact_sheet_shows_small_pictures_of_what_was_labelled(run: FinishedRun) -> None:
    images = write(run).having("img")
    rows = pq.read_table(run.store.root / "predictions").to_pylist()
    labelled = {row["key"]: row for row in rows if row["status"] == "ok"}
    assert len(images) >= NUM_DOUBTFUL
    for image in images:
        row = labelled[str(image["alt"])]
        data = base64.b64decode(str(image["src"]).partition(",")[2])
        with Image.open(io.BytesIO(data)) as picture, Image.open(row["uri"][7:]) as original:
            assert max(picture.size) <= 96
            small = original.convert("RGB").resize(picture.size)
            assert np.abs(np.asarray(small, int) - np.asarray(picture, int)).mean() < 12


def test_contact_sheet_leaves_out_what_is_gone_or_changed(run: FinishedRun) -> None:
    keys = sorted({str(image["alt"]) for image in write(run).having("img")})
    source = Path(run.record.source.uri)
    (source / keys[0]).unlink()
    Image.new("RGB", (40, 40)).save(source / keys[1])
    assert sorted({str(image["alt"]) for image in write(run).having("img")}) == keys[2:]


def test_contact_sheet_stays_small_for_many_labels(drawn_images: Path, tmp_path: Path) -> None:
    labels = tuple(f"label {number}" for number in range(1000))
    page = write(finish_run(drawn_images, tmp_path / "out", labels=labels))
    assert len(page.having("img")) <= 60
    assert "label 999" not in page.text or "others" in page.text


def test_failures_are_counted_by_cause_with_examples(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"{number:02}.jpg").write_text("text" if number < 15 else "")
    run = finish_run(source, tmp_path / "out")
    causes = tally_failures(run.store)
    assert [(cause.status, cause.number) for cause in causes] == [
        ("not_an_image", 15),
        ("empty", 5),
    ]
    assert causes[0].examples == ["00.jpg", "01.jpg", "02.jpg"]
    text = " ".join(write(run).text.split())
    assert "0 of 20 images labelled" in text
    assert "not_an_image 15" in text


def test_a_model_without_calibration_has_scores_and_no_confidence(
    drawn_images: Path, tmp_path: Path
) -> None:
    page = write(finish_run(drawn_images, tmp_path / "out", temperature=None))
    assert "has no calibration" in page.text
    assert "AS confidence" not in page.text


@pytest.mark.parametrize("temperature", [1.5, None])
def test_queries_of_the_page_run_in_its_folder(
    temperature: float | None, drawn_images: Path, tmp_path: Path
) -> None:
    run = finish_run(drawn_images, tmp_path / "out", temperature=temperature)
    sql, python = write(run).pre
    with duckdb.connect() as connection:
        connection.execute(f"SET file_search_path = '{run.store.root}'")
        rows = connection.sql(sql).fetchall()
    assert {row[0] for row in rows} <= set(LABELS)
    assert sum(row[1] for row in rows) == run.receipt.ok
    done = subprocess.run(
        [sys.executable, "-c", python], cwd=run.store.root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "label" in done.stdout


def test_the_same_run_gives_the_same_page(run: FinishedRun) -> None:
    write(run)
    first = (run.store.root / "report.html").read_bytes()
    write(run)
    assert (run.store.root / "report.html").read_bytes() == first


def test_tally_agrees_with_the_rows(run: FinishedRun) -> None:
    tally = tally_rows(run.store, len(LABELS))
    rows = pq.read_table(run.store.root / "predictions").to_pylist()
    ok = [row for row in rows if row["status"] == "ok"]
    assert tally.labels.tolist() == [sum(row["label"] == name for row in ok) for name in LABELS]
    assert tally.score_bins.sum() == len(ok)
    least = sorted(row["confidence"] for row in ok)[:NUM_DOUBTFUL]
    assert [row_at(run, place)["confidence"] for place in tally.doubtful.places()] == least
    for label, examples in zip(LABELS, tally.examples, strict=True):
        assert {row_at(run, place)["label"] for place in examples.places()} <= {label}


def row_at(run: FinishedRun, place: Place) -> dict[str, object]:
    table = pq.read_table(run.store.root / place.part, partitioning=None)
    row: dict[str, object] = table.slice(place.row, 1).to_pylist()[0]
    return row


def test_tally_keeps_few_places_however_many_rows_there_are() -> None:
    random = np.random.default_rng(0)
    tally = Tally(3)
    for batch_number in range(5):
        label_ids = random.integers(0, 3, BATCH_ROWS).astype(np.int32)
        batch = pa.RecordBatch.from_pydict(
            {
                "label_id": label_ids,
                "top_scores": [[score] for score in random.random(BATCH_ROWS)],
            }
        )
        tally.add("part", batch_number * BATCH_ROWS, batch)
    assert tally.labels.sum() == tally.score_bins.sum() == 5 * BATCH_ROWS
    places = [lowest.places() for lowest in tally.examples]
    assert [len(found) for found in places] == [EXAMPLES_A_LABEL] * 3
    assert len({place.row // BATCH_ROWS for found in places for place in found}) > 1


def test_bars_beyond_the_limit_become_one() -> None:
    shown = bars({"a": 1, "b": 5, "c": 2, "d": 2}, limit=2)
    assert [(bar.name, bar.number, bar.share) for bar in shown] == [
        ("b", 5, 1.0),
        ("c", 2, 0.4),
        ("2 others", 3, 0.6),
    ]
