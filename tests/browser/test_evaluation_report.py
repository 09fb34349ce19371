"""The evaluation's page in a real browser: on a phone and a desk, of one model and of three."""

import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cifar_ray.runs import EvaluationRun
from cifar_ray.training.report import Provenance, write_report
from tests.required import require
from tests.unit.training.evaluated import make_evaluation

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror="parent.hacked = hacked = true">' + "x" * 120
LABELS = ("cat", HOSTILE, *(f"a class of a rather long name, number {i}" for i in range(12)))

# The page lets no script look at it, so another page holds it in a frame.
WRAPPER = """
<iframe src="report.html" width="{width}" height="800" style="border: 0"></iframe>
<pre id="seen"></pre>
<script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument;
  for (const folded of page.querySelectorAll("details")) folded.open = true;
  const images = [...page.images];
  document.getElementById("seen").textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    scripts: page.scripts.length,
    hacked: page.defaultView.hacked === true || window.hacked === true,
    images: images.length,
    broken: images.filter((image) => !image.naturalWidth).length,
    unnamed: images.filter((image) => !image.alt).length,
    headings: [...page.querySelectorAll("h2")].map((heading) => heading.textContent),
  }});
}});
</script>
"""
Look = Callable[[str, int], dict[str, Any]]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Look]:
    """Write a page of one model and one of three, and look at them in a window of some width."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    require("chromium", chromium, "there is no chromium on PATH")
    folder = tmp_path_factory.mktemp("pages")
    names = [f"{HOSTILE}{i}" for i in range(60)]
    models = [make_evaluation(folder, LABELS, f"{HOSTILE}{i}", names, i) for i in range(3)]
    warned = Provenance("Nothing. " * 20, (f"A warning. {HOSTILE}",))
    write_report(EvaluationRun(folder / "one"), models[:1], warned)
    write_report(EvaluationRun(folder / "three"), models, warned)
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def look_at(page: str, width: int) -> dict[str, Any]:
            (folder / page / "wrapper.html").write_text(WRAPPER.format(width=width))
            url = f"http://127.0.0.1:{server.server_port}/{page}/wrapper.html"
            command = [str(chromium), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
            command += ["--disable-background-networking", f"--user-data-dir={folder / 'profile'}"]
            dom = subprocess.run(
                [*command, url], capture_output=True, text=True, check=True, timeout=120
            ).stdout
            found = re.search(r'<pre id="seen">(.+?)</pre>', dom)
            assert found is not None, dom
            content: dict[str, Any] = json.loads(html.unescape(found[1]))
            return content

        yield look_at
        server.shutdown()


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("page", ["one", "three"])
def test_the_page_fits_its_window_and_shows_every_picture(
    look: Look, page: str, width: int
) -> None:
    seen = look(page, width)
    assert seen["width"] <= width
    assert (seen["broken"], seen["unnamed"]) == (0, 0)
    assert seen["images"] > 60
    assert (seen["scripts"], seen["hacked"]) == (0, False)
    wanted = {"Confusion matrix", "Classes", "ROC curves", "Reliability", "Surest mistakes"}
    assert wanted <= set(seen["headings"])
    assert ("Side by side" in seen["headings"]) == (page == "three")
