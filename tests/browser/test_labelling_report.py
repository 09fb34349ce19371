"""The labelling report in a real browser: on a phone and a desk, and with hostile file names."""

import html
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cifar_ray.prediction.report import Speed, write_report
from tests.required import require
from tests.unit.prediction.finished_run import finish_run

pytestmark = pytest.mark.browser

# A page around the report, since the report itself lets no script look at it.
WRAPPER = """
<iframe src="report.html" width="{width}" height="800" style="border: 0"></iframe>
<pre id="seen"></pre>
<script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument;
  const images = [...page.images];
  document.getElementById("seen").textContent = JSON.stringify({{
    title: page.title,
    width: page.documentElement.scrollWidth,
    scripts: page.scripts.length,
    hacked: page.defaultView.hacked === true,
    images: images.length,
    broken: images.filter((image) => !image.naturalWidth).length,
    headings: [...page.querySelectorAll("h2")].map((heading) => heading.textContent),
  }});
}});
</script>
"""
Look = Callable[[int], dict[str, Any]]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    require("chromium", found, "there is no chromium on PATH")
    return str(found)


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
    write_report(run.store, run.source, run.record, run.spec, run.receipt, speed, None)
    handler = partial(QuietHandler, directory=str(run.store.root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def look_at(width: int) -> dict[str, Any]:
            (run.store.root / "wrapper.html").write_text(WRAPPER.format(width=width))
            return seen(chromium, f"http://127.0.0.1:{server.server_port}/wrapper.html", tmp_path)

        yield look_at
        server.shutdown()


def seen(chromium: str, url: str, folder: Path) -> dict[str, Any]:
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--disable-background-networking", f"--user-data-dir={folder / 'profile'}", url]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = re.search(r'<pre id="seen">(.+?)</pre>', dom)
    assert found is not None, dom
    content: dict[str, Any] = json.loads(html.unescape(found[1]))
    return content


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
