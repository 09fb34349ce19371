"""A training run from DATA to its bundle, on one process or on many.

dataset     read, decoded and preprocessed as labelling does it    (sources.py, dataset.py;
            streaming.py, survey.py where they are too many)
split       by seed, each class alike; no image in two splits      (split.py)
network     from the registry, perhaps with pretrained weights     (models/transfer.py)
loop        augment -> forward -> backward -> step, by epochs      (loop.py, batches.py)
checkpoint  after every epoch                                      (checkpoint.py)
metrics     temperature on validation images, numbers on test      (metrics.py)
bundle      of the best epoch                                      (models/bundle.py)
report      page and plots                                         (report.py)
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from cifar_ray.config.training import TrainingConfig, TrainingSpec
from cifar_ray.models import registry
from cifar_ray.models.bundle import save_bundle
from cifar_ray.models.bundle_spec import BundleSpec, TrainedOn
from cifar_ray.models.transfer import load_trunk, pretrained_tensors
from cifar_ray.models.weights import round_weights
from cifar_ray.runs import TrainingRun
from cifar_ray.storage.folder_faults import full_disk
from cifar_ray.training import checkpoint
from cifar_ray.training.batches import Statistics
from cifar_ray.training.data.dataset import LabelledImages
from cifar_ray.training.data.sources import Data, geometry, load
from cifar_ray.training.data.split import Splits
from cifar_ray.training.data.split import split_data as split_data
from cifar_ray.training.data.survey import load_stream
from cifar_ray.training.device import use_threads
from cifar_ray.training.evaluation.evaluation import Evaluation
from cifar_ray.training.evaluation.held_out import in_memory
from cifar_ray.training.evaluation.metrics import (
    Timing,
    evaluate,
    fit_temperature,
)
from cifar_ray.training.evaluation.report import Provenance, write_report
from cifar_ray.training.loop import EpochRow, Ranks, Step, Trainer
from cifar_ray.training.place import RunPlace, open_place
from cifar_ray.training.schedule import has_stopped

INITIALISATION_IMAGES = 5_000
STATISTICS_IMAGES = 10_000
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of pixels in [0, 1], as torchvision publishes them with its weights."""
BUNDLE_METRICS = ("accuracy", "f1_macro", "loss", "ece", "evaluated_on", "num_images")


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told how a run goes."""

    on_step: Callable[[Step], None] = lambda step: None
    on_epoch: Callable[[EpochRow], None] = lambda row: None


def train(spec: TrainingSpec, ranks: Ranks, watcher: Watcher) -> dict[str, Any] | None:
    """Train, evaluate, and write the run; go on from its newest checkpoint if there is one.

    Returns the metrics on rank 0, None on the others.
    """
    with use_threads(spec.threads), open_place(spec.run) as place, full_disk(place.run.folder):
        return _train(spec, place, ranks, watcher)


def _train(
    spec: TrainingSpec, place: RunPlace, ranks: Ranks, watcher: Watcher
) -> dict[str, Any] | None:
    config, run = spec.config, place.run
    device = torch.device(spec.device)
    side, streams = input_size(config), config.stream.enabled
    data = load_stream(spec, side, place, ranks) if streams else load(spec.data, side)
    splits = split_data(data, config)
    trainer = make_trainer(config, splits.train, device, ranks, spec.weights)
    place.fetch_checkpoints()
    progress = checkpoint.restore(run.checkpoints, trainer)
    on_device = splits.train.to(device)
    writer = SummaryWriter(str(run.tensorboard)) if ranks.rank == 0 else None
    with writer or nullcontext():
        while not is_done(config, progress):
            history = progress.history
            row = run_epoch(trainer, len(history), on_device, splits.validation, watcher, history)
            progress = checkpoint.Progress((*progress.history, row))
            if writer is not None:
                checkpoint.save(run.checkpoints, trainer, progress)
                place.keep_checkpoints()
                write_history(run, progress)
                for name, value in row.as_dict().items():
                    writer.add_scalar(name, value, row.epoch)
                writer.flush()
                place.keep(run.history, run.tensorboard)
            watcher.on_epoch(row)
    if ranks.rank != 0:
        return None
    metrics = finish(spec, run, data, splits, trainer, progress)
    place.keep(run.history, run.bundle, run.plots, run.report, run.metrics)
    return metrics


def is_done(config: TrainingConfig, progress: checkpoint.Progress) -> bool:
    """Tell whether all epochs are trained, or early stopping ends training before."""
    return progress.epochs_done >= config.epochs or has_stopped(
        config.early_stopping, progress.history
    )


def input_size(config: TrainingConfig) -> int:
    """Return the side of the images that a run trains on."""
    return config.input_px or registry.get(config.network).input_size


def make_trainer(
    config: TrainingConfig,
    images: LabelledImages,
    device: torch.device,
    ranks: Ranks,
    weights: str | None = None,
) -> Trainer:
    """Build the network, the same on every rank, and its trainer; `weights` as in the spec."""
    torch.manual_seed(config.seed)
    network = registry.build(config.network, len(images.label_names))
    if config.transfer.pretrained:
        tensors = pretrained_tensors(config.network, Path(weights) if weights else None)
        load_trunk(config.network, network, tensors, weights or "torchvision's file")
    trainer = Trainer(config, network, pixel_statistics(config, images), device, ranks)
    if not config.transfer.pretrained:
        trainer.initialise(images.take(torch.arange(min(len(images), INITIALISATION_IMAGES))))
    return trainer


def pixel_statistics(config: TrainingConfig, images: LabelledImages) -> Statistics:
    """Return the mean and deviation by which pixels are normalised."""
    return IMAGENET if config.normalisation == "imagenet" else images.statistics()


def run_epoch(
    trainer: Trainer,
    epoch: int,
    data: LabelledImages,
    validation: LabelledImages,
    watcher: Watcher,
    history: tuple[EpochRow, ...] = (),
) -> EpochRow:
    """Train one epoch, before which those in `history` were trained, and validate."""
    started = time.monotonic()
    train_loss, train_accuracy = trainer.train_epoch(epoch, data, watcher.on_step, history)
    seconds = time.monotonic() - started
    validation_loss, validation_accuracy = trainer.validate(validation)
    return EpochRow(
        epoch=epoch,
        train_loss=train_loss,
        validation_loss=validation_loss,
        validation_accuracy=validation_accuracy,
        learning_rate=trainer.learning_rate(),
        seconds=seconds,
        images_per_second=len(data) / seconds,
        train_accuracy=train_accuracy,
    )


def finish(
    spec: TrainingSpec,
    run: TrainingRun,
    data: Data,
    splits: Splits,
    trainer: Trainer,
    progress: checkpoint.Progress,
) -> dict[str, Any]:
    """Calibrate and evaluate the best epoch's weights, and write bundle and metrics."""
    write_history(run, progress)
    best = progress.best
    load_final_weights(trainer, run, spec.config, best.epoch, splits.train)
    round_weights(trainer.averaged, getattr(torch, spec.config.weights_dtype))
    validation_logits = trainer.logits(splits.validation.images).cpu().numpy()
    validation_labels = splits.validation.labels.numpy()
    temperature = fit_temperature(validation_logits, validation_labels)
    held_out = splits.test or splits.validation
    started = time.monotonic()
    logits = trainer.logits(held_out.images).cpu().numpy()
    timing = Timing(time.monotonic() - started, len(held_out))
    names = splits.train.label_names
    metrics = {
        "evaluated_on": "test" if splits.test is not None else "validation",
        **evaluate(logits, held_out.labels.numpy(), names, temperature, timing),
        "validation_accuracy": float((validation_logits.argmax(1) == validation_labels).mean()),
        "best_epoch": best.epoch,
        "training_seconds": sum(row.seconds for row in progress.history),
        "epochs": progress.epochs_done,
        "duplicates": asdict(splits.duplicates),
    }
    views = spec.config.test_time_augmentation
    if views != "none":
        right = trainer.logits(held_out.images, views).argmax(dim=1).cpu() == held_out.labels
        metrics["accuracy_with_views"] = float(right.double().mean())
    # A kill between bundle and metrics leaves a bundle that is made again.
    shutil.rmtree(run.bundle, ignore_errors=True)
    bundle = save_bundle(
        run.bundle,
        trainer.averaged.cpu(),
        bundle_spec(spec, data, splits, metrics),
    )
    evaluation = Evaluation(
        name=Path(spec.run).name,
        bundle=bundle,
        held_out=in_memory(held_out, data.name, metrics["evaluated_on"]),
        logits=logits,
        metrics=metrics,
        history=[row.as_dict() for row in progress.history],
    )
    write_report(run, [evaluation], provenance(evaluation, len(splits.validation), best.epoch))
    write_json(run.metrics, metrics)
    return metrics


def load_final_weights(
    trainer: Trainer,
    run: TrainingRun,
    config: TrainingConfig,
    best_epoch: int,
    images: LabelledImages,
) -> None:
    """Let the trainer evaluate the weights of the bundle: the best epoch's, or an average."""
    done = config.average_epochs
    if not done:
        weights = checkpoint.averaged_weights(run.checkpoints, best_epoch)
        trainer.averaged.load_state_dict(weights)
        return
    trainer.averaged.load_state_dict(checkpoint.mean_weights(run.checkpoints, done))
    trainer.estimate_statistics(images.take(torch.arange(min(len(images), STATISTICS_IMAGES))))


def provenance(evaluation: Evaluation, num_validation: int, best_epoch: int) -> Provenance:
    """Return what the page says of how images were used."""
    chosen_on = (
        f"Epoch {best_epoch + 1} of {len(evaluation.history)} and the temperature were chosen on"
        f" {num_validation:,} validation images, which the network was not trained on."
        f"{_copies(evaluation.metrics['duplicates'])}"
    )
    if evaluation.held_out.split == "test":
        return Provenance(f"{chosen_on} The images of this page were used for this page alone.")
    warning = (
        "There were no test images: the numbers are of the validation images, on which the epoch"
        " and the temperature were chosen, and are a little better than on new ones."
    )
    return Provenance(chosen_on, (warning,))


def _copies(found: dict[str, int]) -> str:
    """Say what was done about equal images, if there are any."""
    if not found["copies"]:
        return ""
    return (
        f" {found['copies']:,} images of DATA equal an earlier one, pixel for pixel;"
        f" {found['left_out']:,} of them were left out, which would have been in two splits."
    )


def bundle_spec(
    spec: TrainingSpec,
    data: Data,
    splits: Splits,
    metrics: dict[str, Any],
) -> BundleSpec:
    """Return what the bundle says of itself."""
    images = splits.train
    mean, std = pixel_statistics(spec.config, images)
    least_width, greatest_width, least_height, greatest_height = images.size_range
    return BundleSpec(
        network=spec.config.network,
        labels=images.label_names,
        preprocess=geometry(input_size(spec.config)).model_copy(update={"mean": mean, "std": std}),
        temperature=metrics["temperature"],
        metrics={name: metrics[name] for name in BUNDLE_METRICS},
        trained_on=TrainedOn(
            dataset=data.name,
            num_images=len(images),
            image_width=(least_width, greatest_width),
            image_height=(least_height, greatest_height),
            recipe=spec.config.recipe,
            seconds=metrics["training_seconds"],
            command=spec.command,
        ),
        weights_dtype=spec.config.weights_dtype,
    )


def write_history(run: TrainingRun, progress: checkpoint.Progress) -> None:
    """Write `history.json`; a kill between checkpoint and history leaves it a row behind."""
    write_json(run.history, [row.as_dict() for row in progress.history])


def write_json(path: Path, content: object) -> None:
    """Write a JSON file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
