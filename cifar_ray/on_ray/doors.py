"""What of a Ray cluster is open to whom: asked from outside, as a stranger would."""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from packaging.version import InvalidVersion, Version

from cifar_ray.config.job import without_credentials
from cifar_ray.errors import InputError

TIMEOUT_S = 10.0
JOBS, VERSION_PAGE = "/api/jobs/", "/api/version"
REFUSED = (401, 403)
VULNERABLE = (
    ("2.8.1", "CVE-2023-6019, -6020, -6021: files are read and commands run through the dashboard"),
    ("2.43.0", "CVE-2025-1979: the password of Redis stands in logs"),
    ("2.52.0", "CVE-2025-62593: a web page in a browser near the dashboard runs code"),
    ("2.52.0", "CVE-2023-48022: no token; whoever reaches the job API runs code"),
    ("2.54.0", "CVE-2026-27482: DELETE requests from a browser end jobs and services"),
)
"""The first version without the fault, and the fault."""


@dataclass(frozen=True, slots=True)
class Doors:
    """What a stranger finds at a dashboard's address."""

    address: str
    ray_version: str | None
    """None if it does not tell strangers."""
    jobs_need_token: bool
    loopback: bool
    warnings: tuple[str, ...]


def look(address: str, ray_version: str | None = None) -> Doors:
    """Try a dashboard's doors without a token; `InputError` if nobody is there.

    `ray_version` is what the cluster told somebody with a token.
    """
    url = without_credentials(address if "://" in address else f"http://{address}").rstrip("/")
    try:
        jobs = requests.get(url + JOBS, timeout=TIMEOUT_S)
        told = requests.get(url + VERSION_PAGE, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        raise InputError(f"No Ray dashboard answers at {url}.") from error
    if told.ok:
        ray_version = str(told.json().get("ray_version"))
    closed = jobs.status_code in REFUSED
    near = is_loopback(urlsplit(url).hostname or "")
    found = [*_open_warnings(url, closed, near), *known_faults(ray_version)]
    return Doors(url, ray_version, closed, near, tuple(found))


def _open_warnings(url: str, closed: bool, near: bool) -> list[str]:
    found = []
    if not closed:
        found.append(
            f"{url} takes jobs from everybody who reaches it, without a token. Start Ray with "
            "RAY_AUTH_MODE=token."
        )
    if not near:
        found.append(
            f"{url} is no loopback address. Start Ray with --dashboard-host=127.0.0.1 and take a "
            "tunnel; a token over plain HTTP can be read on the way."
        )
    return found


def known_faults(ray_version: str | None) -> list[str]:
    """Return the known vulnerabilities of a version of Ray."""
    try:
        version = Version(ray_version or "")
    except InvalidVersion:
        return []
    return [
        f"Ray {ray_version} has {fault}. Take {fixed} or later."
        for fixed, fault in VULNERABLE
        if version < Version(fixed)
    ]


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        found = _addresses(host)
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)


def _addresses(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return set()
