"""Ray's cluster launcher: its schema, offline, and the commands that drive it."""

import copy
import logging
import secrets
import sys
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cifar_ray.config.cluster import DASHBOARD_PORT, TOKEN_FILE, complaints
from cifar_ray.errors import InputError

RAY = (sys.executable, "-P", "-m", "ray.scripts.scripts")
COMMANDS = {
    "up": ("up", "--yes"),
    "down": ("down", "--yes"),
    "dashboard": ("dashboard", "--port", str(DASHBOARD_PORT)),
}


def check(path: Path) -> None:
    """Hold a cluster.yaml against Ray's schema and our rules, without a network or an account.

    Raises `InputError` with all that is wrong.
    """
    config = _read(path)
    faults = _schema_faults(config) or complaints(config)
    if faults:
        raise InputError(f"{path} is not fit to start:\n  " + "\n  ".join(faults))


def command(verb: str, path: Path) -> list[str]:
    """Return the command of Ray's launcher for `up`, `down` or `dashboard`."""
    name, *options = COMMANDS[verb]
    return [*RAY, name, *options, str(path)]


def ensure_token(path: Path | None = None) -> Path:
    """Return this user's token file, made if there is none."""
    path = path or Path(TOKEN_FILE).expanduser()
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there. Take the one of the repository.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no mapping; see cluster.yaml of the repository.")
    return config


def _schema_faults(config: dict[str, Any]) -> list[str]:
    missing = [
        key
        for key in ("cluster_name", "provider", "available_node_types", "head_node_type")
        if key not in config
    ]
    if missing:
        return [f"{key} is missing" for key in missing]
    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)
    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except jsonschema.ValidationError as error:
        place = ".".join(str(part) for part in error.absolute_path)
        return [f"{place}: {error.message}" if place else error.message]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"Ray says: {error}"]
    return []
