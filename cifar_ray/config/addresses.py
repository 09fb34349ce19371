"""Where services are found when nothing else is said, and by which names."""

import ipaddress
from collections.abc import Sequence

LOOPBACK = "127.0.0.1"
LOOPBACK_NAMES = ("localhost", LOOPBACK, "[::1]")
"""What a browser on this machine calls it."""
SERVE_PORT = 8000
SERVICE_URL = f"http://{LOOPBACK}:{SERVE_PORT}"
TELEGRAM_URL = "https://api.telegram.org"


def is_loopback(host: str) -> bool:
    """Tell whether what listens on a host is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def in_url(host: str) -> str:
    """Return a host as URLs and the Host header write it."""
    return f"[{host}]" if ":" in host else host


def answered_names(host: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the Host header that a service on `host` answers to; without any: all.

    A page elsewhere could point a name of its own at this machine, and read what it answers.
    """
    if not given and not is_loopback(host):
        return ()
    return tuple(dict.fromkeys((*LOOPBACK_NAMES, in_url(host), *given)))
