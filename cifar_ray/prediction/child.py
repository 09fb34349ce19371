"""How processes of ours are started."""

import sys
from pathlib import Path

import cifar_ray


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package.

    `-P` keeps the current folder off its path: that may be the images', and hold anybody's code.
    It stays on it where this package itself comes from there, as in a clone that is not installed.
    """
    ours = Path(cifar_ray.__file__).resolve().parents[1] == Path.cwd()
    return [sys.executable, *(() if ours else ("-P",)), "-m", module, *arguments]
