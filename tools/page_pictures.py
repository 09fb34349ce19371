"""Makes docs/page.png and docs/page-phone.png again: the service's page with drawn images.

PYTHONPATH=. .venv/bin/python tools/page_pictures.py

Needs chromium on the PATH, and a .venv with what the tests need.
"""

import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import Browser, expect, sync_playwright

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.serving import Limits, ServiceConfig
from cifar_ray.models.bundle import Bundle
from cifar_ray.serving.app import create_app
from cifar_ray.serving.service import Service
from tests.serving import free_port, over_http

DOCS = Path(__file__).resolve().parent.parent / "docs"
TIMEOUT_S = 300
DESK: dict[str, Any] = {"viewport": {"width": 1080, "height": 400}, "color_scheme": "light"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 400},
    "color_scheme": "dark",
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}
expect.set_options(timeout=1000 * TIMEOUT_S)


def draw_ship() -> Image.Image:
    image = Image.new("RGB", (480, 360), (150, 195, 235))
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((0, 230, 480, 360), fill=(35, 85, 140))
    canvas.polygon(((90, 215), (400, 215), (360, 275), (125, 275)), fill=(120, 45, 35))
    canvas.rectangle((170, 160, 330, 215), fill=(240, 240, 235))
    canvas.rectangle((225, 105, 265, 160), fill=(200, 60, 40))
    return image


def draw_airplane() -> Image.Image:
    image = Image.new("RGB", (480, 320), (120, 175, 235))
    canvas = ImageDraw.Draw(image)
    canvas.ellipse((60, 140, 420, 185), fill=(235, 238, 242))
    canvas.polygon(((200, 165), (290, 165), (220, 270), (180, 270)), fill=(200, 205, 212))
    canvas.polygon(((70, 155), (130, 150), (75, 85), (50, 85)), fill=(200, 60, 50))
    return image


def draw_files(folder: Path) -> list[Path]:
    """Draw what the page is to show, the first at the bottom: one is cut short."""
    buffer = io.BytesIO()
    draw_ship().save(buffer, "JPEG")
    (folder / "cut.jpg").write_bytes(buffer.getvalue()[:-2000])
    draw_airplane().save(folder / "drawn airplane.png")
    draw_ship().save(folder / "drawn ship.png")
    return [folder / name for name in ("cut.jpg", "drawn airplane.png", "drawn ship.png")]


def photograph(browser: Browser, url: str, files: list[Path], window: dict[str, Any]) -> bytes:
    """Give files to the page, ask for the evidence of the last, and return a PNG of all of it."""
    page = browser.new_page(**window)
    page.set_default_timeout(1000 * TIMEOUT_S)
    page.goto(url)
    expect(page.locator("#limits")).to_contain_text("MB")
    page.set_input_files("#files", files)
    expect(page.locator(".waiting:visible")).to_have_count(0)
    page.get_by_role("button", name="Show why").first.click()
    expect(page.get_by_role("button", name="Show the image")).to_be_visible()
    # Not `full_page`, for which the driver forgets that a phone is touched.
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": window["viewport"]["width"], "height": height})
    return page.screenshot(animations="disabled")


def main() -> None:
    config = ServiceConfig(
        models={"box": str(Bundle.default().path)},
        default_model="box",
        execution=ExecutionRequest(device="cpu", precision="float32"),
        batch_sizes=(1,),
        limits=Limits(request_s=TIMEOUT_S),
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        over_http(create_app(Service(config)), free_port()) as url,
        sync_playwright() as driver,
    ):
        files = draw_files(Path(folder))
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        shots = {"page.png": (files, DESK), "page-phone.png": (files[::2], PHONE)}
        for name, (given, window) in shots.items():
            with Image.open(io.BytesIO(photograph(browser, url, given, window))) as picture:
                picture.convert("RGB").quantize(256).save(DOCS / name, optimize=True)


if __name__ == "__main__":
    main()
