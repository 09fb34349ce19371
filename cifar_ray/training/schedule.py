"""The learning rate over a run, and when to stop: functions of the step and of the history.

Plateau and early stopping keep no state of their own: what they decide follows from the history,
which every checkpoint holds, and so a run that goes on decides as an undisturbed one.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from cifar_ray.config.optimization import EarlyStoppingConfig, Monitor, ScheduleConfig
from cifar_ray.config.training import TrainingConfig
from cifar_ray.training.epoch import EpochRow


def learning_rate_factor(
    config: TrainingConfig, step: int, steps_per_epoch: int, history: Sequence[EpochRow]
) -> float:
    """Return the factor of `optimizer.learning_rate` in a step (from 0, over the whole run).

    `history` has a row for each epoch before the step's.
    """
    schedule, transfer = config.schedule, config.transfer
    epoch = step // steps_per_epoch
    after_freezing = bool(transfer.frozen_epochs) and epoch >= transfer.frozen_epochs
    factor = transfer.unfrozen_factor if after_freezing else 1.0
    match schedule.name:
        case "constant":
            return factor
        case "plateau":
            return factor * plateau_factor(schedule, monitored(history, schedule.monitor))
        case "staged":
            return factor * stage_rate(schedule, epoch) / config.optimizer.learning_rate
        case "piecewise":
            xs, ys = zip(*schedule.knots, strict=True)
            return factor * float(np.interp(step / steps_per_epoch, xs, ys))
        case "one-cycle" | "cosine":
            num_steps = config.epochs * steps_per_epoch
            warmup = schedule.warmup_fraction * num_steps
            if step < warmup:
                return factor * (step + 1) / (warmup + 1)
            left = (num_steps - step) / (num_steps - warmup)
            return factor * (left if schedule.name == "one-cycle" else cosine(left))


def cosine(left: float) -> float:
    """Fall from 1 to 0 along half a cosine, as `left` does in a line.

    I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts"
    (arXiv:1608.03983), without restarts.
    """
    return 0.5 * (1 - math.cos(math.pi * left))


def stage_rate(schedule: ScheduleConfig, epoch: int) -> float:
    """Return the rate of the stage that an epoch (from 0) lies in; the last one goes on."""
    ends = accumulate(length for length, _ in schedule.stages)
    rates = (rate for _, rate in schedule.stages)
    return next(
        (rate for end, rate in zip(ends, rates, strict=True) if epoch < end),
        schedule.stages[-1][1],
    )


def plateau_factor(schedule: ScheduleConfig, values: Sequence[float]) -> float:
    """Multiply by `plateau_factor` each time that values have not fallen for the patience."""
    factor, best, waited = 1.0, math.inf, 0
    for value in values:
        waited = 0 if value < best else waited + 1
        best = min(best, value)
        if waited == schedule.plateau_patience:
            factor, waited = factor * schedule.plateau_factor, 0
    return factor


def has_stopped(config: EarlyStoppingConfig, history: Sequence[EpochRow]) -> bool:
    """Tell whether validation has not improved for the patience."""
    if config.patience is None or not history:
        return False
    values = monitored(history, config.monitor)
    return len(values) - 1 - values.index(min(values)) >= config.patience


def monitored(history: Sequence[EpochRow], monitor: Monitor) -> list[float]:
    """Return a value an epoch, the lower the better."""
    if monitor == "validation_loss":
        return [row.validation_loss for row in history]
    return [-row.validation_accuracy for row in history]


def set_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times the one it was built with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor
