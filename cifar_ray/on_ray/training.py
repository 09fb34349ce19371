"""Training with Ray Train: the loop of `training/`, once a worker, with averaged gradients.

Rank 0 writes the run's folder or bucket, which driver and workers must share, and puts how far it
is into `progress.json` there, from which the driver's display takes it.
"""

import itertools
import math
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cifar_ray.config.training import TrainingSpec
from cifar_ray.models.transfer import pretrained_tensors
from cifar_ray.on_ray.metrics.training import metered
from cifar_ray.on_ray.run_board import RunBoard
from cifar_ray.on_ray.session import node_cpus, ray_session
from cifar_ray.on_ray.verdict import open_verdict, outcome_of, under_verdict
from cifar_ray.training.loop import EpochRow, Ranks, Step
from cifar_ray.training.pipeline import Watcher
from cifar_ray.training.pipeline import train as train_on_rank
from cifar_ray.training.place import open_place

MAX_FAILURES = 2
COLLECTIVE_TIMEOUT_S = 600
RAY_FOLDER = "ray"
"""Ray Train's own files, below the run's folder."""


def train(spec: TrainingSpec, address: str | None, watcher: Watcher) -> dict[str, Any]:
    """Train with `spec.workers` workers and return the metrics.

    Raises the workers' own `CifarRayError`s, and Ray's `TrainingFailedError` for any other error.
    """
    if spec.config.transfer.pretrained:
        # Once, before workers race for the download; and an error of it needs no Ray to be told.
        pretrained_tensors(spec.config.network, Path(spec.weights) if spec.weights else None)
    with ray_session(address), open_place(spec.run) as place:
        # The driver's node alone uses it: our checkpoints do not pass through Ray.
        ray_folder = place.run.folder / RAY_FOLDER
        verdict = open_verdict()
        trainer = TorchTrainer(
            _train_worker,  # type: ignore[arg-type] # its value is Result.return_value
            train_loop_config={"spec": spec.model_dump(mode="json"), "verdict": verdict},
            scaling_config=ScalingConfig(
                num_workers=spec.workers,
                use_gpu=spec.device == "cuda",
                resources_per_worker=_resources(spec, node_cpus()),
            ),
            run_config=RunConfig(
                # A name that was used before would silently go on with Ray's own old state.
                name=uuid.uuid4().hex,
                storage_path=str(ray_folder),
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
            ),
            torch_config=TorchConfig(
                backend="nccl" if spec.device == "cuda" else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S
            ),
        )
        with _followed(RunBoard(spec.run), metered(watcher)):
            metrics = outcome_of(verdict, trainer.fit)
        shutil.rmtree(ray_folder, ignore_errors=True)
    return metrics


def _resources(spec: TrainingSpec, nodes: Sequence[float]) -> dict[str, float]:
    """Ask for the threads that a worker uses, but never for more than lets all find a place."""
    if spec.device == "cuda":
        return {"GPU": 1.0, "CPU": 1.0}
    return {"CPU": min(float(spec.threads), cores_each(nodes, spec.workers))}


def cores_each(nodes: Sequence[float], workers: int) -> float:
    """Return how many cores each of `workers` can have if all shall find a place at once.

    `nodes` are the nodes' cores; while there is none, each worker asks for one.
    """
    for cores in range(int(max(nodes, default=0)), 0, -1):
        if sum(int(cpus // cores) for cpus in nodes) >= workers:
            return float(cores)
    if sum(nodes) < 1:
        return 1.0
    share = next(n for n in itertools.count(2) if sum(int(cpus * n) for cpus in nodes) >= workers)
    return math.floor(1000 / share) / 1000


def _train_worker(content: dict[str, Any]) -> dict[str, Any]:
    """Train on this rank; rank 0's return value reaches the driver."""
    spec = TrainingSpec.model_validate(content["spec"])
    ranks = ranks_of_group(spec.device)
    board = RunBoard(spec.run)

    def on_step(step: Step) -> None:
        if ranks.rank == 0:
            board.tell(step)

    def on_epoch(row: EpochRow) -> None:
        # A barrier, and what the dashboard shows.
        ray.train.report(row.as_dict())

    def train_here() -> dict[str, Any]:
        return train_on_rank(spec, ranks, Watcher(on_step, on_epoch)) or {}

    return under_verdict(content["verdict"], train_here)


def ranks_of_group(device: str) -> Ranks:
    """Return this worker's place among those that Ray Train has put together."""
    context = ray.train.get_context()
    return Ranks(
        context.get_world_rank(),
        context.get_world_size(),
        _averaging(device),
        torch.distributed.all_reduce,
    )


def _averaging(device: str) -> Callable[[nn.Module], nn.Module]:
    def wrap(network: nn.Module) -> nn.Module:
        if device == "cuda":
            own = ray.train.torch.get_device()
            return DistributedDataParallel(network.to(own), device_ids=[own.index])
        return DistributedDataParallel(network)

    return wrap


@contextmanager
def _followed(board: RunBoard, watcher: Watcher) -> Iterator[None]:
    """Tell the watcher what rank 0 writes, until the block ends."""
    ended = threading.Event()
    epochs_before = len(board.rows())

    def follow() -> None:
        told, last = epochs_before, None
        while True:
            stop = ended.wait(board.interval_s)
            step = board.step()
            if step is not None and step != last:
                last = step
                watcher.on_step(step)
            for row in board.rows()[told:]:
                told += 1
                watcher.on_epoch(row)
            if stop:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        board.clear()
