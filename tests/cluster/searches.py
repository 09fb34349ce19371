"""Searches of a few short trials over drawn images."""

from pathlib import Path

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.search import SearchSpec
from cifar_ray.config.spaces import parse_space
from cifar_ray.config.training import override
from cifar_ray.on_ray.tuning.search import search
from cifar_ray.training.search.opening import open_search
from cifar_ray.training.search.record import Records

SETTINGS = ["epochs=4", "batch_size=20", "validation_fraction=0.2"]
RATES = "learning_rate = {log_uniform = [1e-4, 1e-2]}"
WORKER = "ray::ImplicitFunc"
WAIT_S = 300


def spec_of(data: Path, run: Path, space: str = RATES, **changes: object) -> SearchSpec:
    config = override(get_recipe("cnn-122k"), SETTINGS)
    values = {
        "config": config,
        "space": parse_space("drawn.toml", space, config),
        "search": "random",
        "scheduler": "none",
        "num_trials": 4,
        "seed": 0,
        "data": str(data),
        "run": str(run),
        "code_version": "0",
    }
    spec = SearchSpec.model_validate({**values, **changes})
    open_search(spec)
    return spec


def run(spec: SearchSpec) -> Records:
    records = Records.load(spec)
    search(records, None, lambda now: None)
    return Records.load(spec)
