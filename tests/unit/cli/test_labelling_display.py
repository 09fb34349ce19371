import io
import time

import pytest
from rich.console import Console

from cifar_ray.cli.labelling_display import LabellingDisplay, show_receipt, show_stages
from cifar_ray.prediction.engine import Paused
from cifar_ray.prediction.forecasting.forecast import Compared
from cifar_ray.prediction.pipeline import RunProgress
from cifar_ray.prediction.receipt import Receipt


def told(*updates: RunProgress) -> list[str]:
    """Return the lines that a run prints where there is no terminal, all of them due."""
    console = Console(file=io.StringIO(), width=200)
    display = LabellingDisplay(console)
    display.started = time.monotonic() - 10
    with display.live() as show:
        for progress in updates:
            display.line_due = 0.0
            show(progress)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_line_says_how_far_a_run_is_and_how_long_it_takes_once_all_are_listed() -> None:
    progress = RunProgress(images_listed=200)
    assert told(progress) == ["0/~200 images · 0 failed"]
    progress = RunProgress(images_listed=200, images_before=50, rows=100, failed=3, image_bytes=1)
    (line,) = told(progress)
    assert line.startswith("100/~200 images · 50 done before · ")
    assert line.endswith(" images/s · 0.0 MB/s · 3 failed")
    progress.listing_ended = True
    progress.pause = Paused("the store is gone", delay_s=30)
    (line,) = told(progress)
    assert line.startswith("100/200 images")
    assert " left · " in line
    assert line.endswith(" · PAUSED for 30 s: the store is gone")


def test_what_there_is_to_warn_of_is_said_once() -> None:
    first = RunProgress(note="The disk is slow.")
    later = RunProgress(note="The disk is slow.", warning="These are no photos.")
    lines = [line for line in told(first, later, later) if line.startswith("Warning")]
    assert lines == ["Warning: The disk is slow.", "Warning: These are no photos."]


def test_a_receipt_is_shown_beside_its_plan(capsys: pytest.CaptureFixture[str]) -> None:
    receipt = Receipt(
        partial={"limit": 1200},
        found=1203,
        skipped={".txt": 3},
        listed=1200,
        ok=1199,
        failed={"empty": 1},
        image_bytes=1,
        parts=1,
        run_digest="",
        manifest_digest="",
        parts_digest="",
        forecast={
            "cpu_hours": Compared(low=1, expected=2, high=3, actual=2.5),
            "parts": Compared(low=7, expected=7, high=7, actual=7),
        },
        sealed_at="",
    )
    show_receipt(receipt, "labels", as_json=False)
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        *("found 1,203", "skipped .txt 3", "listed 1,200 (partial)", "ok 1,199", "empty 1"),
        "Planned cpu hours 2 (1 to 3), was 2.5",
        "Planned parts 7, was 7",
        "Rows labels/predictions",
        "Report labels/report.html",
    ]


def test_stages_are_shown_the_longest_first(capsys: pytest.CaptureFixture[str]) -> None:
    show_stages({"fetch": 1.0, "model": 3.0})
    printed = capsys.readouterr().out
    assert printed.index("model") < printed.index("fetch")
    assert "75%" in printed
