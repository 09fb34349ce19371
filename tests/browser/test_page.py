"""The page of the service in a real browser, driven as a person would."""

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.serving import Limits, ServiceConfig, digest_of_key
from cifar_ray.models.bundle import Bundle
from cifar_ray.serving.app import create_app
from cifar_ray.serving.service import Service
from tests.drawing import draw_folder
from tests.serving import free_port, over_http

pytestmark = pytest.mark.browser

ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
TIMEOUT_MS = 60_000
LIMITS = Limits(image_bytes=100_000)
KEY = "0123456789abcdef"
Open = Callable[..., Page]
# What a person drops or pastes, since no driver moves files over a window.
GIVE = """(files) => {
  const transfer = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (char) => char.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
  }
  return transfer;
}"""
expect.set_options(timeout=TIMEOUT_MS)


def service_of(**changes: object) -> Service:
    fields: dict[str, object] = {
        "models": {"box": str(Bundle.default().path)},
        "default_model": "box",
        "execution": ExecutionRequest(device="cpu", backend="torch", precision="float32"),
        "batch_sizes": (1,),
        "limits": LIMITS,
    }
    return Service(ServiceConfig.model_validate({**fields, **changes}))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with over_http(create_app(service_of()), free_port()) as address:
        yield address


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    # The browser is the system's: the driver is to look for none of its own.
    os.environ["PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD"] = "1"
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Open the page in a window; at the end no script of it may have failed."""
    contexts, faults = [], []

    def open_page(address: str, **window: object) -> Page:
        context = browser.new_context(**window)  # type: ignore[arg-type]
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("drawn")
    return [path for path in draw_folder(folder, 24) if path.stat().st_size < LIMITS.image_bytes]


def label_of(url: str, path: Path) -> str:
    """Ask the service itself, in float32 as the page does."""
    answer = httpx.post(f"{url}/v1/predict", files={"image": path.read_bytes()}, timeout=60)
    return str(answer.json()["results"][0]["label"])


def give(page: Page, event: str, files: list[tuple[str, bytes]]) -> None:
    """Drop or paste files."""
    content = [(name, base64.b64encode(data).decode()) for name, data in files]
    transfer = page.evaluate_handle(GIVE, content)
    if event == "drop":
        page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    else:
        event = "new ClipboardEvent('paste', { clipboardData })"
        page.evaluate(f"(clipboardData) => document.dispatchEvent({event})", transfer)


def card(page: Page, name: str) -> Locator:
    return page.locator(".card").filter(has=page.get_by_text(name, exact=True))


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_dropped_and_pasted_images_get_their_own_labels(
    url: str, visit: Open, drawn: list[Path], event: str
) -> None:
    labels = {path: label_of(url, path) for path in drawn}
    one = drawn[0]
    other = next(path for path in drawn if labels[path] != labels[one])
    page = visit(url)
    give(page, event, [(path.name, path.read_bytes()) for path in (one, other)])
    for path in (one, other):
        expect(card(page, path.name).locator(".label")).to_have_text(labels[path])
        bars = card(page, path.name).locator(".bar-label")
        expect(bars).to_have_count(3)
        expect(bars.first).to_have_text(labels[path])


def test_what_cannot_be_labelled_says_why(url: str, visit: Open, tmp_path: Path) -> None:
    files = {"text.jpg": b"this is no picture", "empty.png": b"", "large.png": bytes(100_001)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    page = visit(url)
    page.set_input_files("#files", [tmp_path / name for name in files])
    for name, said in (
        ("text.jpg", "This is not an image"),
        ("empty.png", "This file is empty"),
        ("large.png", "This image is too large"),
    ):
        expect(card(page, name).locator(".fault-title")).to_have_text(said)


def test_evidence_is_laid_over_the_image_and_taken_away(
    url: str, visit: Open, drawn: list[Path]
) -> None:
    page = visit(url)
    page.set_input_files("#files", drawn[0])
    picture = page.locator(".card img")
    page.get_by_role("button", name="Show why").click()
    expect(page.get_by_role("button", name="Show the image")).to_be_visible()
    assert str(picture.get_attribute("src")).startswith("data:image/png")
    assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 100
    page.get_by_role("button", name="Show the image").click()
    expect(page.get_by_role("button", name="Show why")).to_be_visible()
    assert str(picture.get_attribute("src")).startswith("blob:")


def test_evidence_is_that_of_the_model_which_gave_the_label(visit: Open, drawn: list[Path]) -> None:
    box = str(Bundle.default().path)
    service = service_of(models={"first": box, "second": box}, default_model="first")
    with over_http(create_app(service), free_port()) as address:
        page = visit(address)
        expect(page.locator("#model")).to_have_value("first")
        page.set_input_files("#files", drawn[0])
        expect(page.locator(".label")).not_to_be_empty()
        page.get_by_label("Model").select_option("second")
        with page.expect_request("**/v1/predict?*") as asked:
            page.get_by_role("button", name="Show why").click()
        assert httpx.URL(asked.value.url).params["model"] == "first"
        expect(page.get_by_role("button", name="Show the image")).to_be_visible()


def test_history_outlives_a_reload_and_goes_when_it_is_cleared(
    url: str, visit: Open, drawn: list[Path]
) -> None:
    page = visit(url)
    page.set_input_files("#files", drawn[:2])
    expect(page.locator(".answer:visible")).to_have_count(2)
    said = page.locator(".label").all_text_contents()
    page.reload()
    expect(page.locator(".answer:visible")).to_have_count(2)
    assert sorted(page.locator(".label").all_text_contents()) == sorted(said)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".card")).to_have_count(0)
    page.reload()
    expect(page.locator("#limits")).to_contain_text("MB")
    expect(page.locator(".card")).to_have_count(0)


def test_an_image_that_was_cleared_while_it_was_looked_at_stays_away(
    url: str, visit: Open, drawn: list[Path]
) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page = visit(url)
    page.route("**/v1/predict?*", hold, times=1)
    with page.expect_request("**/v1/predict?*"):
        page.set_input_files("#files", drawn[0])
    page.get_by_role("button", name="Clear").click()
    with page.expect_response("**/v1/predict?*"):
        held.pop().continue_()
    page.set_input_files("#files", drawn[1])
    expect(page.locator(".answer:visible")).to_have_count(1)
    page.reload()
    expect(page.locator(".answer:visible")).to_have_count(1)
    expect(page.locator(".card")).to_have_count(1)


def test_a_phone_shows_all_of_it_and_offers_the_camera(
    url: str, visit: Open, drawn: list[Path], tmp_path: Path
) -> None:
    long_name = tmp_path / f"{'a long name ' * 10}.png"
    long_name.write_bytes(b"no image")
    window = {"width": 360, "height": 780}
    page = visit(url, viewport=window, has_touch=True, is_mobile=True, color_scheme="dark")
    expect(page.get_by_text("Take a photo")).to_be_visible()
    page.set_input_files("#files", [drawn[0], long_name])
    expect(page.locator(".waiting:visible")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= window["width"]
    box = page.locator("#choose").bounding_box()
    assert box is not None
    assert box["height"] >= 44  # a thumb's


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(url: str, visit: Open, scheme: str) -> None:
    page = visit(url, color_scheme=scheme)
    expect(page.locator("#limits")).to_contain_text("MB")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for selector in ("h1", "#about", "footer p"):
        text = page.locator(selector).first.evaluate("(node) => getComputedStyle(node).color")
        assert contrast(text, ground) >= 4.5, selector  # WCAG 2.2, 1.4.3


def contrast(one: str, other: str) -> float:
    """Return the contrast of two CSS colours `rgb(r, g, b)` (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        values = [int(part) / 255 for part in colour.strip("rgb()").split(",")]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_all_of_it_is_reached_by_keyboard(url: str, visit: Open, drawn: list[Path]) -> None:
    page = visit(url)
    # The driver hears of choosers a while after it is asked to: it is asked before the first key.
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "choose"
        ring = page.locator("#choose").evaluate("(node) => getComputedStyle(node).outlineStyle")
        assert ring == "solid"
        page.keyboard.press("Enter")
    chooser.value.set_files(drawn[0])
    evidence = page.get_by_role("button", name="Show why")
    expect(evidence).to_be_visible()
    evidence.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Show the image")).to_be_focused()


def test_hostile_names_are_shown_and_not_run(url: str, visit: Open) -> None:
    page = visit(url)
    name = "<img src=x onerror=alert(1)>.png"
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    give(page, "drop", [(name, b"no image")])
    expect(card(page, name).locator(".fault-title")).to_have_text("This is not an image")


def test_a_service_that_is_gone_is_told_and_asked_again(visit: Open, drawn: list[Path]) -> None:
    port = free_port()
    app = create_app(service_of())
    with over_http(app, port) as address:
        page = visit(address)
        expect(page.locator("#limits")).to_contain_text("MB")
    page.set_input_files("#files", drawn[0])
    expect(page.locator(".fault-title")).to_have_text("The service cannot be reached")
    with over_http(app, port):
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".label")).not_to_be_empty()


def test_a_key_is_asked_for_where_one_is_needed(visit: Open, drawn: list[Path]) -> None:
    service = service_of(api_key_digests=(digest_of_key(KEY),))
    with over_http(create_app(service), free_port()) as address:
        page = visit(address)
        for key, wrong in (("not the right key", True), (KEY, False)):
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Use it").click()
            expect(page.locator("#key-wrong")).to_be_visible(visible=wrong)
        expect(page.locator("#key-form")).to_be_hidden()
        page.set_input_files("#files", drawn[0])
        expect(page.locator(".label")).not_to_be_empty()
