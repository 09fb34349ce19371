"""Checkpoints: a folder each with `state.safetensors` and `state.json`, whole or not there.

With the history they hold all that a run's future depends on: orders and random numbers follow
from the epoch's number, plateau and early stopping from the history. The newest and the best are
kept, and those that the config averages; what a kill left unfinished is swept by the next save.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cifar_ray.errors import InputError
from cifar_ray.models.weights import write_tensors
from cifar_ray.training.loop import EpochRow, Trainer

TENSORS = "state.safetensors"
STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: its history so far, a row an epoch."""

    history: tuple[EpochRow, ...] = ()

    @property
    def epochs_done(self) -> int:
        """Number of epochs that are trained."""
        return len(self.history)

    @property
    def best(self) -> EpochRow:
        """The epoch of the highest validation accuracy; of equal ones that of the lowest loss."""
        return max(self.history, key=lambda row: (row.validation_accuracy, -row.validation_loss))


def save(folder: Path, trainer: Trainer, progress: Progress) -> None:
    """Write the newest epoch's checkpoint; keep it and the best one, and sweep the others."""
    path = _path(folder, progress.epochs_done)
    temporary = folder / f".{path.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _write(temporary, trainer, progress)
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    finally:
        # Still there if it failed, perhaps for want of the room that it takes.
        shutil.rmtree(temporary, ignore_errors=True)
    kept = (progress.epochs_done, progress.best.epoch + 1, *trainer.config.average_epochs)
    keep = {_path(folder, epochs_done).name for epochs_done in kept}
    for other in folder.iterdir():
        if other.name not in keep:
            shutil.rmtree(other, ignore_errors=True)


def _write(folder: Path, trainer: Trainer, progress: Progress) -> None:
    tensors, optimizers = _optimizer_state(trainer.optimizers)
    networks = {"network": trainer.network}
    if trainer.averaged is not trainer.network:
        networks["averaged"] = trainer.averaged
    for prefix, network in networks.items():
        tensors |= {f"{prefix}.{k}": v.contiguous() for k, v in network.state_dict().items()}
    write_tensors(tensors, folder / TENSORS)
    state = {"history": [row.as_dict() for row in progress.history], "optimizers": optimizers}
    (folder / STATE).write_text(json.dumps(state, indent=1))
    for file in folder.iterdir():
        with file.open("r+b") as written:
            os.fsync(written.fileno())


def restore(folder: Path, trainer: Trainer) -> Progress:
    """Load the newest checkpoint into the trainer; from the beginning if there is none.

    Raises `InputError` for one that is damaged.
    """
    newest = max(folder.glob("epoch-*"), default=None)
    if newest is None:
        return Progress()
    state, tensors = _read(newest)
    trainer.network.load_state_dict(_part(tensors, "network"))
    if trainer.averaged is not trainer.network:
        # None in the checkpoint of a search's other trial, which did without: it begins here.
        trainer.averaged.load_state_dict(_part(tensors, "averaged") or _part(tensors, "network"))
    for number, optimizer in enumerate(trainer.optimizers):
        _restore_optimizer(
            optimizer, state["optimizers"][number], _part(tensors, f"optimizer{number}")
        )
    return Progress(tuple(EpochRow(**row) for row in state["history"]))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        return json.loads((path / STATE).read_text()), load_file(path / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"The run's {path.parent.name}/{path.name} is damaged: {error}. Delete it; the same"
            " command then goes on from an earlier checkpoint, or else begins again."
        ) from error


def averaged_weights(folder: Path, epoch: int) -> dict[str, Tensor]:
    """Return the state_dict of the weights that are evaluated and kept after `epoch` (from 0)."""
    tensors = load_file(_path(folder, epoch + 1) / TENSORS)
    return _part(tensors, "averaged") or _part(tensors, "network")


def mean_weights(folder: Path, epochs_done: tuple[int, ...]) -> dict[str, Tensor]:
    """Return the mean of the weights that were kept after so many epochs each.

    P. Izmailov et al., "Averaging Weights Leads to Wider Optima" (arXiv:1803.05407).
    """
    states = [averaged_weights(folder, done - 1) for done in epochs_done]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in states[-1].items()
    }


def _path(folder: Path, epochs_done: int) -> Path:
    return folder / f"epoch-{epochs_done:04d}"


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        k.removeprefix(prefix + "."): v for k, v in tensors.items() if k.startswith(prefix + ".")
    }


def _optimizer_state(
    optimizers: list[torch.optim.Optimizer],
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Split optimizers' states into tensors and what JSON can hold."""
    tensors: dict[str, Tensor] = {}
    rest: list[dict[str, Any]] = []
    for number, optimizer in enumerate(optimizers):
        saved = optimizer.state_dict()
        names: dict[int, list[str]] = {}
        for index, values in saved["state"].items():
            names[index] = list(values)
            for name, value in values.items():
                tensors[f"optimizer{number}.{index}.{name}"] = torch.as_tensor(value).contiguous()
        rest.append({"param_groups": saved["param_groups"], "state": names})
    return tensors, rest


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, saved: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Load an optimizer's state; parameters that were frozen so far have none."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states = {
        int(index): {
            name: _laid_out_as(parameters[int(index)], tensors[f"{index}.{name}"]) for name in names
        }
        for index, names in saved["state"].items()
    }
    optimizer.load_state_dict({"param_groups": saved["param_groups"], "state": states})


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """Lay a value out in memory as its parameter is: files do not say, and kernels do not ask."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)
