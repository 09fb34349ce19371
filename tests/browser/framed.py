"""A page in a real browser, seen through a page around it: our pages let no script look at them."""

import html
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FRAME = """
<iframe src="report.html" width="{width}" height="800" style="border: 0" {sandbox}></iframe>
<pre id="seen"></pre>
<script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument;
  document.getElementById("seen").textContent = JSON.stringify({look});
}});
</script>
"""


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback; its address."""
    handler = partial(_QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def look_at(
    chromium: str, folder: Path, url: str, look: str, width: int, sandbox: str = ""
) -> dict[str, Any]:
    """Show a folder's `report.html`; what the script `look` (an expression of `page`) gives."""
    (folder / "frame.html").write_text(FRAME.format(width=width, sandbox=sandbox, look=look))
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--disable-background-networking", f"--user-data-dir={folder / 'profile'}"]
    dom = subprocess.run(
        [*command, f"{url}/frame.html"], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    found = re.search(r'<pre id="seen">(.+?)</pre>', dom)
    assert found is not None, dom
    content: dict[str, Any] = json.loads(html.unescape(found[1]))
    return content
