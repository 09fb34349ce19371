"""An evaluation to write pages of: drawn images, logits from a seed."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_ray.training.evaluation.evaluation import Evaluation
from cifar_ray.training.evaluation.held_out import HeldOut
from cifar_ray.training.evaluation.metrics import Timing, evaluate
from tests.drawing import draw
from tests.unit.models.bundles import make_bundle

HISTORY: list[dict[str, Any]] = [
    {
        "epoch": i,
        "train_loss": 2 / (i + 1),
        "validation_loss": 2.2 / (i + 1),
        "train_accuracy": 0.25 * i,
        "validation_accuracy": 0.2 * i,
    }
    for i in range(4)
]


def draw_held_out(label_names: tuple[str, ...], names: Sequence[str]) -> HeldOut:
    """Drawn 32×32 images, one for each name; the first ten classes have them in turn."""
    rng = random.Random(0)
    images = np.stack([np.asarray(draw(rng, (32, 32), "RGB")) for _ in names])
    labels = np.arange(len(names)) % min(10, len(label_names))
    return HeldOut("drawn", "test", names, labels, label_names, lambda ids, _: images[list(ids)])


def make_evaluation(
    folder: Path,
    label_names: tuple[str, ...],
    name: str = "model",
    image_names: Sequence[str] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a bundle of random weights by logits that are right for most images."""
    held_out = draw_held_out(label_names, image_names or [f"image {i}" for i in range(60)])
    bundle = make_bundle(folder / f"bundle{seed}", labels=label_names, temperature=1.0 + seed)
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (len(held_out), len(label_names)))
    logits[np.arange(len(held_out)), held_out.labels] += 2
    logits = logits.astype(np.float32)
    timing = Timing(1.0, len(held_out))
    metrics = {
        "dataset": held_out.dataset,
        "evaluated_on": held_out.split,
        **evaluate(logits, held_out.labels, label_names, bundle.spec.temperature, timing),
    }
    return Evaluation(name, bundle, held_out, logits, metrics, HISTORY)
