"""`cifar-ray evaluate`: bundles judged by the same labelled images, decoded in full."""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cifar_ray.config.execution import REFERENCE, Execution, ExecutionRequest
from cifar_ray.config.machine import usable_cores
from cifar_ray.errors import InputError
from cifar_ray.models.backends.base import Pending
from cifar_ray.models.backends.resolve import open_backend, resolve_execution
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.fetching import IN_RUN
from cifar_ray.models.opening import open_bundle
from cifar_ray.models.torchvision_table import PREFIX
from cifar_ray.runs import EvaluationRun, TrainingRun
from cifar_ray.storage import S3_SCHEME, open_store
from cifar_ray.storage.folder_faults import folder_faults
from cifar_ray.training.evaluation.evaluation import Evaluation
from cifar_ray.training.evaluation.held_out import HeldOut, load_held_out
from cifar_ray.training.evaluation.metrics import Logits, Timing, evaluate
from cifar_ray.training.evaluation.report import Provenance, write_report
from cifar_ray.training.pipeline import write_json

BATCH_PIXELS = 2**19
"""Of a batch: 512 images of 32×32, 10 of 224×224."""
OnImages = Callable[[str, int, int], None]
"""Is told a model's name, how many images it has done, and of how many."""


def evaluate_bundles(
    places: Sequence[str],
    data: str,
    out: Path,
    asked: ExecutionRequest = REFERENCE,
    on_images: OnImages = lambda name, done, total: None,
    weights: Path | None = None,
) -> list[Evaluation]:
    """Judge models by the same images; write page, plots and metrics.

    `places` are bundles, runs or `torchvision:NAME`, whose weights may come from the file `weights`
    or the folder of such files. `asked` is what they compute in; `REFERENCE` compares models, and
    what `predict` would take judges its labels. Raises `InputError` for models of different labels,
    for DATA that does not serve, and for a folder with other things in it.
    """
    run = EvaluationRun(out)
    _refuse_other_contents(run)
    bundles = {
        place: open_bundle(place, weights if place.startswith(PREFIX) else None) for place in places
    }
    _refuse_twice(places, bundles)
    _refuse_other_labels(bundles)
    labels = next(iter(bundles.values())).spec.labels
    executions = {place: execution_for(bundle, asked) for place, bundle in bundles.items()}
    held_out = load_held_out(data, labels)
    with folder_faults(out):
        out.mkdir(parents=True, exist_ok=True)
    evaluations = []
    for name, (place, bundle) in zip(_names(places), bundles.items(), strict=True):
        execution = executions[place]
        logits, timing = predict(bundle, held_out, execution, partial(on_images, name))
        # Bundles may have the same labels in another order; one page has one order.
        logits = logits[:, [bundle.spec.labels.index(label) for label in labels]]
        metrics = {
            "model": bundle.id,
            "dataset": held_out.dataset,
            "evaluated_on": held_out.split,
            "computed_in": execution.precision,
            **evaluate(logits, held_out.labels, labels, bundle.spec.temperature, timing),
        }
        evaluations.append(
            Evaluation(name, bundle, held_out, logits, metrics, _history(place, bundle))
        )
    with folder_faults(out):
        write_report(run, evaluations, _provenance(evaluations))
        write_json(run.metrics, metrics_content(evaluations))
    return evaluations


def metrics_content(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Return what `metrics.json` holds: a model's metrics, or those of several in a list."""
    if len(evaluations) == 1:
        return evaluations[0].metrics
    return {"models": [evaluation.metrics for evaluation in evaluations]}


def execution_for(bundle: Bundle, asked: ExecutionRequest) -> Execution:
    """Decide how a bundle is judged; in float32, by the backend that others are compared with."""
    request = asked.model_copy(
        update={
            "backend": "torch" if asked.precision == "float32" else asked.backend,
            "batch_size": max(8, BATCH_PIXELS // bundle.spec.preprocess.input_size**2),
            "threads": usable_cores(),
        }
    )
    return resolve_execution(request, bundle.spec)


def predict(
    bundle: Bundle,
    held_out: HeldOut,
    execution: Execution,
    on_images: Callable[[int, int], None],
) -> tuple[Logits, Timing]:
    """Return logits of the held-out images, N×C; it decodes one batch ahead."""
    backend = open_backend(bundle, execution)
    total, size = len(held_out), execution.batch_size
    started = time.monotonic()
    parts: list[Logits] = []
    pending: Pending | None = None
    for start in range(0, total, size):
        numbers = range(start, min(start + size, total))
        images = held_out.pixels(numbers, bundle.spec.preprocess)
        if pending is not None:
            parts.append(backend.result(pending).logits)
            on_images(start, total)
        # A batch has its full size, whatever is left.
        batch = np.zeros((size, *images.shape[1:]), np.uint8)
        batch[: len(images)] = images
        pending = backend.submit(batch)
    if pending is not None:
        parts.append(backend.result(pending).logits)
        on_images(total, total)
    return np.concatenate(parts)[:total], Timing(time.monotonic() - started, total)


def _names(places: Sequence[str]) -> list[str]:
    """Return what the page calls each model: short where that tells them apart."""
    short = [_short_name(place) for place in places]
    return short if len(set(short)) == len(short) else list(places)


def _short_name(place: str) -> str:
    """Return the last part of a path that is not `bundle`."""
    if place.startswith(PREFIX):
        return place
    folder = Path(place).absolute()
    in_run = folder.name == TrainingRun(folder.parent).bundle.name
    return folder.parent.name if in_run else folder.name


def _refuse_twice(places: Sequence[str], bundles: dict[str, Bundle]) -> None:
    seen: dict[str, str] = {}
    for place, bundle in bundles.items():
        if bundle.digest in seen:
            raise InputError(f"{place} is the same bundle as {seen[bundle.digest]}. Give it once.")
        seen[bundle.digest] = place
    if len(bundles) < len(places):
        raise InputError("A bundle is given twice. Give each once.")


def _refuse_other_labels(bundles: dict[str, Bundle]) -> None:
    (first, reference), *others = bundles.items()
    for place, bundle in others:
        ours, theirs = set(reference.spec.labels), set(bundle.spec.labels)
        if ours != theirs:
            faults = [
                f"only {which} knows {', '.join(sorted(names)[:5])}"
                + (f" and {len(names) - 5} more" if len(names) > 5 else "")
                for which, names in ((first, ours - theirs), (place, theirs - ours))
                if names
            ]
            raise InputError(
                f"The bundles {first} ({len(ours)} labels) and {place} ({len(theirs)} labels) know"
                f" different labels: {'; '.join(faults)}. One page compares bundles of the same"
                " labels; evaluate the others by themselves."
            )


def _history(place: str, bundle: Bundle) -> list[dict[str, Any]]:
    """Return the history of the training run that a bundle lies in, or nothing."""
    run = str(bundle.path.parent)
    if place.startswith(S3_SCHEME):  # the bundle itself lies in the cache
        run = place.rstrip("/").removesuffix(f"/{IN_RUN}")
    try:
        rows: list[dict[str, Any]] = json.loads(open_store(run).read(TrainingRun.HISTORY))
    except FileNotFoundError:
        return []
    return rows


def _provenance(evaluations: Sequence[Evaluation]) -> Provenance:
    held_out = evaluations[0].held_out
    warnings = tuple(
        f"{item.name} was trained on data called {held_out.dataset}, too. If these images are among"
        " those that it has seen, its numbers here are better than on new ones."
        for item in evaluations
        if held_out.split == "all" and item.bundle.spec.trained_on.dataset == held_out.dataset
    )
    return Provenance(
        "Nothing was chosen or fitted on these images. Epochs and temperatures stand in the bundles"
        " since they were made.",
        warnings,
    )


def _refuse_other_contents(run: EvaluationRun) -> None:
    """Refuse a folder that holds anything but an evaluation, which is written anew."""
    ours = {path.name for path in (run.metrics, run.report, run.plots)}
    others = [path.name for path in run.folder.iterdir()] if run.folder.is_dir() else []
    strange = sorted(set(others) - ours)
    if strange:
        raise InputError(
            f"--out {run.folder} holds other things ({', '.join(strange[:5])}). Give a new folder,"
            " or that of an earlier evaluation."
        )
