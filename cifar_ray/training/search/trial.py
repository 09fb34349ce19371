"""The training of one trial: epochs on the training split, each followed by one validation.

Test images are split off and dropped at once: a search never looks at them.
"""

import errno
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock
from pydantic import ValidationError

from cifar_ray.config.training import TrainingConfig, TrainingSpec
from cifar_ray.errors import CifarRayError, InputError, Unfinished
from cifar_ray.runs import TrialRun
from cifar_ray.storage.folder_faults import full_disk
from cifar_ray.training import checkpoint
from cifar_ray.training.data.dataset import LabelledImages
from cifar_ray.training.data.sources import load
from cifar_ray.training.device import use_threads
from cifar_ray.training.loop import EpochRow, Ranks, Trainer
from cifar_ray.training.optimizer import build_optimizers
from cifar_ray.training.pipeline import (
    Watcher,
    input_size,
    is_done,
    make_trainer,
    run_epoch,
    split_data,
    write_history,
    write_json,
)
from cifar_ray.training.search.budget import EpochBudget

NO_CPU_MEMORY = "DefaultCPUAllocator"
"""Begins torch's message when the main memory is used up."""
NUM_CACHED = 2
"""Sizes of input that a worker keeps decoded images for."""


Report = Callable[[EpochRow], None]


@contextmanager
def hold_trial(trial: TrialRun, report: Report) -> Iterator[Report]:
    """Be the only one in a trial's folder: a killed driver's workers go on for seconds.

    Gives back the report without the folder held: there Tune may leave a paused trial for good.
    """
    trial.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(trial.lock)

    def report_outside(row: EpochRow) -> None:
        lock.release()
        report(row)
        lock.acquire()

    lock.acquire()
    try:
        yield report_outside
    finally:
        lock.release()


@contextmanager
def attempt(trial: TrialRun) -> Iterator[None]:
    """Write down why a trial cannot be trained, instead of raising it: it costs itself only.

    Wrong input, a full disk and a store that is gone are no fault of the trial's: their exit code
    says so. What kills the whole process is not caught, and may be tried again.
    """
    trial.failure.unlink(missing_ok=True)
    try:
        with full_disk(trial.folder):
            yield
    except (InputError, Unfinished) as error:
        write_json(trial.failure, {"error": str(error), "exit_code": error.exit_code})
    except Exception as error:  # noqa: BLE001 -- reported as the trial's cause, whatever it is
        write_json(trial.failure, {"error": cause(error)})
    finally:
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def cause(error: Exception) -> str:
    """Return an error in one line."""
    if isinstance(error, CifarRayError):
        return str(error)
    if isinstance(error, ValidationError):
        return f"These parameters do not go together: {error.errors()[0]['msg']}."
    lines = str(error).strip().splitlines() or [""]
    is_short = isinstance(error, MemoryError | torch.OutOfMemoryError)
    # A file that cannot be mapped, or a process that cannot be started.
    is_short |= isinstance(error, OSError) and error.errno == errno.ENOMEM
    if is_short or NO_CPU_MEMORY in lines[0]:
        return f"Out of memory. {lines[0]}".strip()
    return f"{type(error).__name__}: {lines[0]}"


def train_trial(
    spec: TrainingSpec,
    base: TrainingConfig,
    ranks: Ranks,
    report: Report,
    budget: EpochBudget,
    again: bool = True,
) -> None:
    """Train the rest of a trial in the folder `spec.run`, and report every epoch.

    Epochs that are trained already are reported `again`, first, so that a scheduler that has
    forgotten them judges the trial as before. `base` is the search's recipe, which decides on the
    split. Ends early when `budget` gives no epoch; raises `CifarRayError` when the trial diverges.
    """
    with use_threads(spec.threads):
        config, run = spec.config, TrialRun(Path(spec.run)).training
        device = torch.device(spec.device)
        # Before anything is decoded: many trials may find the epochs used up.
        if not _told(lambda: run.checkpoints.is_dir() or budget.take(), ranks, device):
            return
        training, validation = images(spec.data, base, input_size(config))
        trainer = make_trainer(config, training, device, ranks)
        progress = checkpoint.restore(run.checkpoints, trainer)
        use_hyperparameters(trainer)
        for row in progress.history if again else ():
            report(row)
        on_device = training.to(device)
        while not is_done(config, progress) and _told(budget.take, ranks, device):
            epoch, history = progress.epochs_done, progress.history
            row = run_epoch(trainer, epoch, on_device, validation, Watcher(), history)
            if ranks.rank == 0:
                budget.settle()
            if not math.isfinite(row.validation_loss):
                raise CifarRayError(f"The validation loss is not finite after epoch {epoch + 1}.")
            progress = checkpoint.Progress((*progress.history, row))
            if ranks.rank == 0:
                checkpoint.save(run.checkpoints, trainer, progress)
                write_history(run, progress)
            report(row)


def _told(ask: Callable[[], bool], ranks: Ranks, device: torch.device) -> bool:
    """Ask on the first rank, and tell the others."""
    answer = torch.tensor(float(ranks.rank == 0 and ask()), device=device)
    ranks.add(answer)
    return answer.item() > 0


@lru_cache(maxsize=NUM_CACHED)
def images(data: str, base: TrainingConfig, side: int) -> tuple[LabelledImages, LabelledImages]:
    """Return training and validation images; a worker decodes them once for all its trials."""
    splits = split_data(load(data, side), base)
    return splits.train, splits.validation


def use_hyperparameters(trainer: Trainer) -> None:
    """Let the optimizers go by the config, not by the checkpoint, which may be another trial's."""
    fresh = build_optimizers(trainer.network, trainer.config.optimizer)
    for optimizer, new in zip(trainer.optimizers, fresh, strict=True):
        for group, new_group in zip(optimizer.param_groups, new.param_groups, strict=True):
            group.update({name: new_group[name] for name in new_group if name != "params"})
            group["initial_lr"] = group["lr"]


def take_over(trial: TrialRun, checkpoints: Path) -> None:
    """Let a trial go on from another's checkpoints; within `hold_trial`."""
    own = trial.training.checkpoints
    temporary = own.with_name(f".{own.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(checkpoints, temporary)
    shutil.rmtree(own, ignore_errors=True)
    temporary.rename(own)
    newest = max(own.glob("epoch-*"))
    write_json(
        trial.training.history, json.loads((newest / checkpoint.STATE).read_text())["history"]
    )
