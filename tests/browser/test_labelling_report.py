"""The labelling report in a real browser: on a phone and a desk, and with hostile file names."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cifar_ray.prediction.reporting.report import Speed, report_page
from cifar_ray.runs import LabellingRun
from tests.browser.framed import look_at, served
from tests.unit.prediction.finished_run import finish_run

pytestmark = pytest.mark.browser

LOOK = """{
    title: page.title,
    width: page.documentElement.scrollWidth,
    scripts: page.scripts.length,
    hacked: page.defaultView.hacked === true,
    images: page.images.length,
    broken: [...page.images].filter((image) => !image.naturalWidth).length,
    headings: [...page.querySelectorAll("h2")].map((heading) => heading.textContent),
}"""
Look = Callable[[int], dict[str, Any]]


@pytest.fixture
def look(chromium: str, drawn_images: Path, tmp_path: Path) -> Iterator[Look]:
    """Write a report with all that one can hold, and look at it in a window of some width."""
    hostile = '<img src=x onerror="parent.hacked = hacked = true">' + "x" * 150
    for number, name in enumerate((f"{hostile}.jpg", "<script>hacked = true<", "0123456789" * 20)):
        if sys.platform != "win32":
            Image.new("RGB", (9, 9), (number, 0, 0)).save(drawn_images / name, "PNG")
            (drawn_images / f"broken {name}").write_text("no image")
    (drawn_images / "notes.txt").touch()
    run = finish_run(drawn_images, tmp_path / "out", warnings=("A warning. " * 20, hostile))
    speed = Speed(images=27, image_bytes=10**6, seconds=2.0, stage_seconds={"model": 1.0})
    page = report_page(run.store, run.source, run.record, run.spec, run.receipt, speed)
    run.store.write(LabellingRun.REPORT, page)
    with served(run.store.root) as url:
        yield partial(look_at, chromium, run.store.root, url, LOOK)


@pytest.mark.parametrize("width", [360, 1200])
def test_report_fits_its_window_and_shows_every_picture(look: Look, width: int) -> None:
    page = look(width)
    assert page["width"] <= width
    assert page["images"] > 0
    assert page["broken"] == 0
    assert page["title"].endswith("images labelled")
    wanted = {"Labels", "Confidence", "Contact sheet", "Speed", "How to go on"}
    assert wanted <= set(page["headings"])


def test_hostile_file_names_run_nothing(look: Look) -> None:
    page = look(800)
    assert (page["scripts"], page["hacked"], page["broken"]) == (0, False, 0)
