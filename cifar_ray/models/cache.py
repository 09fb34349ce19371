"""Where downloads and converted graphs are kept between runs."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return `$CIFAR_RAY_CACHE`, else the platform's place for caches; it may not exist yet."""
    named = os.environ.get("CIFAR_RAY_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "cifar-ray"
