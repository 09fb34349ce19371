"""How processes of ours are started."""

import sys


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package.

    `-P` keeps the current folder off its path: that may be the images', and hold anybody's code.
    """
    return [sys.executable, "-P", "-m", module, *arguments]
