"""The evaluation's page in a real browser: on a phone and a desk, of one model and of three."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cifar_ray.runs import EvaluationRun
from cifar_ray.training.evaluation.report import Provenance, write_report
from tests.browser.framed import look_at, served
from tests.unit.training.evaluated import make_evaluation

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror="parent.hacked = hacked = true">' + "x" * 120
LABELS = ("cat", HOSTILE, *(f"a class of a rather long name, number {i}" for i in range(12)))

LOOK = """(() => {
  for (const folded of page.querySelectorAll("details")) folded.open = true;
  const images = [...page.images];
  return {
    width: page.documentElement.scrollWidth,
    scripts: page.scripts.length,
    hacked: page.defaultView.hacked === true || window.hacked === true,
    images: images.length,
    broken: images.filter((image) => !image.naturalWidth).length,
    unnamed: images.filter((image) => !image.alt).length,
    headings: [...page.querySelectorAll("h2")].map((heading) => heading.textContent),
  };
})()"""
Look = Callable[[str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def look(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Look]:
    """Write a page of one model and one of three, and look at them in a window of some width."""
    folder = tmp_path_factory.mktemp("pages")
    names = [f"{HOSTILE}{i}" for i in range(60)]
    models = [make_evaluation(folder, LABELS, f"{HOSTILE}{i}", names, i) for i in range(3)]
    warned = Provenance("Nothing. " * 20, (f"A warning. {HOSTILE}",))
    write_report(EvaluationRun(folder / "one"), models[:1], warned)
    write_report(EvaluationRun(folder / "three"), models, warned)
    with served(folder) as url:

        def look_at_page(page: str, width: int) -> dict[str, Any]:
            return look_at(chromium, folder / page, f"{url}/{page}", LOOK, width)

        yield look_at_page


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
