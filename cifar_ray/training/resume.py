"""A run's folder: taken up if it holds the same run, refused if it holds another."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cifar_ray.config.training import TrainingSpec
from cifar_ray.errors import InputError
from cifar_ray.runs import TrainingRun
from cifar_ray.training.pipeline import write_json

FREE_TO_CHANGE = frozenset({"run", "device", "threads", "workers", "settings", "code_version"})
"""What may differ from one start of a run to the next."""


def open_run(spec: TrainingSpec) -> dict[str, Any] | None:
    """Make the run's folder, or check that it is this run's; return its metrics if it is finished.

    Raises `InputError` that names what differs.
    """
    run = TrainingRun(Path(spec.run))
    if run.config.exists():
        _check_same(run, spec)
        if run.metrics.exists():
            metrics: dict[str, Any] = json.loads(run.metrics.read_text())
            return metrics
        return None
    if run.folder.is_dir() and any(run.folder.iterdir()):
        raise InputError(f"--out {run.folder} is not empty and holds no run. Give a new folder.")
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.config, spec.model_dump(mode="json"))
    return None


def read_spec(folder: Path) -> TrainingSpec:
    """Return what a run was started with; `InputError` if there is none or it cannot be read."""
    config = TrainingRun(folder).config
    try:
        return TrainingSpec.model_validate_json(config.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no training run: {config.name} is missing.") from error
    except ValidationError as error:
        raise InputError(
            f"{config} is not of this version of cifar-ray, or is damaged. Give another --out."
        ) from error


def _check_same(run: TrainingRun, spec: TrainingSpec) -> None:
    there = read_spec(run.folder)
    differences = _differences(there.model_dump(mode="json"), spec.model_dump(mode="json"))
    if differences:
        raise InputError(
            f"--out {run.folder} holds another run, which differs in\n  "
            + "\n  ".join(differences)
            + "\nGive what it was started with, or another --out."
        )


def _differences(there: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name in there:
        if name in FREE_TO_CHANGE:
            continue
        if isinstance(there[name], dict):
            found += _differences(there[name], now[name], f"{prefix}{name}.")
        elif there[name] != now[name]:
            found.append(f"{prefix}{name}: there {there[name]}, now {now[name]}")
    return found
