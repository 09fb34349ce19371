"""CSV: what was written comes back, umlauts show in Excel, and no name becomes a formula."""

import csv
from pathlib import Path

import pandas
import pyarrow.parquet as pq
import pytest

from cifar_ray.errors import InputError
from cifar_ray.prediction.export.spreadsheet import COLUMNS, cell, export_csv
from tests.drawing import draw_folder
from tests.unit.prediction.finished_run import FinishedRun, finish_run

ODD_NAMES = (
    "Bär.jpg",
    "=cmd|' calc'!A1.jpg",
    "-1+1.jpg",
    "@sum.jpg",
    'a"b,c;d.jpg',
    "two\nlines.jpg",
)


@pytest.fixture
def run(tmp_path: Path) -> FinishedRun:
    """20 images, and some with the names of somebody who means harm or speaks German."""
    images = draw_folder(tmp_path / "images", count=20)
    for name in ODD_NAMES:
        (tmp_path / "images" / name).write_bytes(images[0].read_bytes())
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no picture")
    return finish_run(tmp_path / "images", tmp_path / "out", labels=("Bär", "=1+1", "ship"))


def test_every_row_is_there_and_umlauts_show_in_excel(run: FinishedRun, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    seen: list[int] = []
    assert export_csv(run.store, path, seen.append) == sum(seen) == run.receipt.listed
    assert path.read_bytes().startswith("\ufeff".encode())  # what Excel knows UTF-8 by
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = pq.read_table(tmp_path / "out" / "predictions").to_pylist()
    assert len(rows) == len(expected)
    for row, row_expected in zip(rows, expected, strict=True):
        assert row["sha256"] == row_expected["sha256"].hex()
        assert row["status"] == row_expected["status"]
        assert row["label"].lstrip("'") == (row_expected["label"] or "")
    assert {row["label"] for row in rows} == {"Bär", "'=1+1", "ship", ""}
    assert any(row["key"] == "Bär.jpg" for row in rows)


def test_no_cell_is_a_formula_or_breaks_a_line(run: FinishedRun, tmp_path: Path) -> None:
    export_csv(run.store, tmp_path / "labels.csv", lambda rows: None)
    with open(tmp_path / "labels.csv", encoding="utf-8-sig", newline="") as file:
        cells = [text for row in csv.reader(file) for text in row]
    assert len(cells) == (run.receipt.listed + 1) * len(COLUMNS)
    assert [text for text in cells if text.startswith(("=", "+", "-", "@"))] == []
    assert [text for text in cells if text and not text.isprintable()] == []


def test_pandas_reads_it(run: FinishedRun, tmp_path: Path) -> None:
    export_csv(run.store, tmp_path / "labels.csv", lambda rows: None)
    table = pandas.read_csv(tmp_path / "labels.csv")
    assert list(table.columns) == list(COLUMNS)
    assert table["confidence"].between(0, 1).sum() == run.receipt.ok


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("=1", "'=1"),
        ("  =1", "'  =1"),
        ("\t=1", "\\t=1"),
        ("\N{FULLWIDTH EQUALS SIGN}1", "'\N{FULLWIDTH EQUALS SIGN}1"),
        ("a=1", "a=1"),
        ("\x1b[31m", "\\x1b[31m"),
        ([0.5, 0.25], "0.5; 0.25"),
        (["=a", "b"], "'=a; b"),
        (0.91230005, "0.9123"),
        (None, ""),
        (b"\x0f", "0f"),
        ("", ""),
    ],
)
def test_a_cell_holds_what_does_nothing(value: object, text: str) -> None:
    assert cell(value) == text


def test_an_existing_file_and_a_place_in_the_run_are_refused(
    run: FinishedRun, tmp_path: Path
) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        export_csv(run.store, tmp_path / "mine.csv", lambda rows: None)
    assert (tmp_path / "mine.csv").read_text() == "mine"
    with pytest.raises(InputError, match="lies inside the run"):
        export_csv(run.store, tmp_path / "out" / "predictions" / "x.csv", lambda rows: None)
    with pytest.raises(InputError, match="There is no folder"):
        export_csv(run.store, tmp_path / "nowhere" / "x.csv", lambda rows: None)
