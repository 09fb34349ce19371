"""A run's place: taken up if it holds the same run, refused if it holds another."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cifar_ray.config.training import TOLD, TrainingSpec
from cifar_ray.errors import InputError
from cifar_ray.storage.folder_faults import folder_faults
from cifar_ray.training.pipeline import write_json
from cifar_ray.training.place import open_place

FREE_TO_CHANGE = TOLD | {
    *("run", "device", "threads", "workers", "settings", "mlflow", "code_version")
}
"""What may differ from one start of a run to the next."""


def open_run(spec: TrainingSpec) -> dict[str, Any] | None:
    """Make the run's folder, or check that it is this run's; return its metrics if it is finished.

    Raises `InputError` that names what differs, or for a place that cannot be used.
    """
    with open_place(spec.run) as place:
        run = place.run
        place.fetch(run.config, run.metrics)
        if run.config.exists():
            _check_same(_read_spec(run.config, spec.run), spec)
            if run.metrics.exists():
                metrics: dict[str, Any] = json.loads(run.metrics.read_text())
                return metrics
            place.sweep()
            return None
        if place.names():
            raise InputError(f"--out {spec.run} is not empty and holds no run. Give a new folder.")
        with folder_faults(run.folder):
            run.folder.mkdir(parents=True, exist_ok=True)
            write_json(run.config, spec.model_dump(mode="json"))
        place.keep(run.config)
        return None


def read_spec(uri: str) -> TrainingSpec:
    """Return what a run was started with; `InputError` if there is none or it cannot be read."""
    with open_place(uri) as place:
        place.fetch(place.run.config)
        return _read_spec(place.run.config, uri)


def _read_spec(config: Path, uri: str) -> TrainingSpec:
    try:
        return TrainingSpec.model_validate_json(config.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{uri} is no training run: {config.name} is missing.") from error
    except ValidationError as error:
        raise InputError(
            f"{uri}/{config.name} is not of this version of cifar-ray, or is damaged. Give another"
            " --out."
        ) from error


def _check_same(there: TrainingSpec, spec: TrainingSpec) -> None:
    differences = _differences(there.model_dump(mode="json"), spec.model_dump(mode="json"))
    if differences:
        raise InputError(
            f"--out {spec.run} holds another run, which differs in\n  "
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
