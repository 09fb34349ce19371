"""What this machine offers, as far as a plan needs it."""

import os


def usable_cores() -> int:
    """Return the cores that this process may use, which in a container are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
