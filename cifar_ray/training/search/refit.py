"""The best trial's bundle: its parameters trained again in full, on the same split."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cifar_ray.config.spaces import apply
from cifar_ray.config.training import TrainingSpec
from cifar_ray.runs import SearchRun, TrainingRun
from cifar_ray.training import checkpoint
from cifar_ray.training.data.sources import load
from cifar_ray.training.device import use_threads
from cifar_ray.training.loop import Ranks
from cifar_ray.training.pipeline import Watcher, finish, input_size, make_trainer, split_data
from cifar_ray.training.pipeline import train as train_on_rank
from cifar_ray.training.resume import open_run
from cifar_ray.training.search.record import Records, TrialRecord

Train = Callable[[TrainingSpec, Watcher], dict[str, Any] | None]
"""Trains a run, here or elsewhere, and returns its metrics."""


def train_here(spec: TrainingSpec, watcher: Watcher) -> dict[str, Any] | None:
    """Train in this process."""
    return train_on_rank(spec, Ranks(), watcher)


def refit(
    records: Records,
    best: TrialRecord,
    device: str,
    threads: int,
    watcher: Watcher,
    train: Train = train_here,
) -> dict[str, Any]:
    """Train the best trial again in full, write `RUN/bundle`, and return its metrics.

    A killed refit goes on. A member of a population, which no single training can repeat, is not
    trained again: its own weights become the bundle.
    """
    run = SearchRun(Path(records.spec.run))
    spec = refit_spec(records, best, device, threads)
    metrics = open_run(spec)
    if metrics is None:
        metrics = _finish_member(records, best, spec) if best.exploits else train(spec, watcher)
    assert metrics is not None, "rank 0 returns them"
    _place_bundle(TrainingRun(run.refit).bundle, run.bundle)
    return metrics


def refit_spec(records: Records, best: TrialRecord, device: str, threads: int) -> TrainingSpec:
    """Return the best trial's training, as a run of its own."""
    spec = records.spec
    return TrainingSpec(
        config=apply(spec.config, best.parameters),
        data=spec.data,
        run=str(SearchRun(Path(spec.run)).refit),
        device=device,
        threads=threads,
        settings=(*spec.settings, *(f"{k}={_word(v)}" for k, v in best.parameters.items())),
        code_version=spec.code_version,
    )


def _finish_member(records: Records, best: TrialRecord, spec: TrainingSpec) -> dict[str, Any]:
    trial = SearchRun(Path(records.spec.run)).trial(best.number)
    with use_threads(spec.threads):
        data = load(spec.data, input_size(spec.config))
        splits = split_data(data, records.spec.config)
        trainer = make_trainer(spec.config, splits.train, torch.device(spec.device), Ranks())
        run = TrainingRun(Path(spec.run))
        shutil.copytree(trial.training.checkpoints, run.checkpoints, dirs_exist_ok=True)
        progress = checkpoint.restore(run.checkpoints, trainer)
        return finish(spec, run, data, splits, trainer, progress)


def _place_bundle(source: Path, bundle: Path) -> None:
    temporary = bundle.with_name(f".{bundle.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    shutil.rmtree(bundle, ignore_errors=True)
    temporary.rename(bundle)


def _word(value: object) -> str:
    return json.dumps(value)
