"""Commands for which permissions hold, also where the tests run as root."""

import os
import shutil

from tests.required import require

PRIVILEGES = "--bounding-set=-dac_override,-dac_read_search"


def bound(command: list[str]) -> list[str]:
    """Return a command that ends at a folder without permission, as any user's does."""
    require("permissions", os.name == "posix", "this system has no permissions such as these")
    if os.geteuid() != 0:
        return command
    require("setpriv", shutil.which("setpriv"), "root needs it to do without its privileges")
    return ["setpriv", PRIVILEGES, *command]
