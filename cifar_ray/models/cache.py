"""Where downloads and converted graphs are kept between runs."""

import os
import sys
import tempfile
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


def cache_fault() -> str | None:
    """Return why nothing can be kept on this machine; None if it can."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"x")
    except OSError as error:
        return f"{folder}: {os.strerror(error.errno or 0)}"
    return None
