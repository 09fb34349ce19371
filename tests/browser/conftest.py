import shutil

import pytest

from tests.required import require


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of the system's browser."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    require("chromium", found, "there is no chromium on PATH")
    return str(found)
