"""`quantize`: a bundle that labels in int8, made and judged with the images of a store."""

import hashlib
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cifar_ray.config.execution import Execution, ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.config.machine import usable_cores
from cifar_ray.errors import ImageFault, InputError, printable
from cifar_ray.models import quantization, self_test
from cifar_ray.models.backends import Backend, open_backend, resolve_execution
from cifar_ray.models.bundle import Bundle, file_sha256, refuse_existing
from cifar_ray.models.bundle_spec import Comparison, Int8Record
from cifar_ray.models.opening import open_bundle
from cifar_ray.models.scoring import probabilities
from cifar_ray.prediction.care.watchdog import Limits
from cifar_ray.prediction.decoding import Decoding
from cifar_ray.prediction.sources import Entry, Source, find_source, open_source
from cifar_ray.prediction.stopwatch import Stopwatch

MINIMUM = 200
"""Images to compare: among fewer, half a per cent is not even one."""
_AT_ONCE = 128
"""Images in memory while labels are compared."""

Images = NDArray[np.uint8]
Scores = NDArray[np.float32]
Tell = Callable[[str, int], None]
"""Called with what is being done and how much of it is done."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for."""

    model: str | None
    source: str
    weights: Path | None = None
    root: str | None = None
    num_calibration: int = 300
    num_compared: int = 2000
    least_agreement: float = 0.995
    seed: int = 0


class _Pair(NamedTuple):
    """An image as a run would decode it, and as the reference does, in full; S×S×3 each."""

    fast: Images
    reference: Images


class Quantized(NamedTuple):
    """What was made, and what was passed over on the way."""

    bundle: Bundle
    passed_over: Counter[str]
    """Files of the sample, by the status that a run would give them, or `repeated`."""


def quantize_bundle(asked: Question, folder: Path, tell: Tell) -> Quantized:
    """Write a bundle with an int8 graph to `folder`, if it keeps the labels.

    Ranges are measured on some of the store's images, and labels compared on others: those of int8
    as a run decodes, with those of float32 and images decoded in full. No file twice. Raises
    `InputError` for too few images, and where fewer labels agree than asked for; then nothing is
    written.
    """
    refuse_existing(folder)
    quantization.require_nncf()
    bundle = open_bundle(asked.model, asked.weights)
    num_images = asked.num_calibration + asked.num_compared
    config = LabellingConfig(sample=num_images, sample_seed=asked.seed)
    source = open_source(find_source(asked.source, asked.root, config), config)
    cores = usable_cores()
    fast = resolve_execution(
        ExecutionRequest(device="cpu", threads=cores, precision="float32"), bundle.spec
    )
    reference = fast.model_copy(update={"decoder": "pillow", "decoder_scaling": False})
    with ExitStack() as stack, tempfile.TemporaryDirectory() as scratch:
        decodings = [
            stack.enter_context(closing(_decoding(bundle, way, config)))
            for way in (fast, reference)
        ]
        entries = _entries(source, asked.seed)
        passed_over: Counter[str] = Counter()
        pairs = _different_images(source, entries, decodings, bundle, passed_over)
        # Where there are few images, most of them are needed to judge.
        wanted = min(asked.num_calibration, len(entries) // 4)
        calibration = [pair.fast for pair in islice(pairs, wanted)]
        if len(calibration) * 3 < MINIMUM:
            raise _too_few(asked, len(calibration) + sum(1 for _ in pairs), passed_over)
        tell("measuring ranges", 0)
        graph = Path(scratch) / "int8.xml"
        nncf = quantization.quantize(bundle, np.stack(calibration), graph)
        int8 = _int8_backend(graph, fast)
        expected, found = _scores(pairs, open_backend(bundle, reference), int8, bundle, tell)
        if len(found) < MINIMUM:
            raise _too_few(asked, len(calibration) + len(found), passed_over)
        comparison = quantization.compare(expected, found)
        if comparison.agreement < asked.least_agreement:
            raise InputError(_disagreement(bundle, comparison, asked))
        record = Int8Record(
            graph_sha256=file_sha256(graph),
            weights_sha256=file_sha256(graph.with_suffix(".bin")),
            nncf=nncf,
            num_calibration_images=len(calibration),
            source=printable(asked.source),
            comparison=comparison,
            self_test=_self_test(bundle, int8),
        )
        return Quantized(bundle.with_int8(graph, record, folder), passed_over)


def _entries(source: Source, seed: int) -> list[Entry]:
    """Return the sample in an order that has nothing to do with names."""
    items = source.listing(0).entries(None)
    entries = [item for item in items if isinstance(item, Entry)]
    random.Random(seed).shuffle(entries)
    return entries


def _decoding(bundle: Bundle, execution: Execution, config: LabellingConfig) -> Decoding:
    preprocess = bundle.spec.preprocess
    options = preprocess.decode_options(execution.decoder, execution.decoder_scaling)
    return Decoding(options, preprocess, Limits.of(config))


def _different_images(
    source: Source,
    entries: list[Entry],
    decodings: list[Decoding],
    bundle: Bundle,
    passed_over: Counter[str],
) -> Iterator[_Pair]:
    """Yield the images that can be read and decoded, each content once, and count the others."""
    fetcher, seen = source.fetcher(), set[bytes]()
    shape = (bundle.spec.preprocess.input_size,) * 2 + (3,)
    for entry in entries:
        slots = [np.empty(shape, np.uint8) for _ in decodings]
        try:
            data = fetcher.fetch(entry)
            digest = hashlib.sha256(data).digest()
            if digest in seen:
                passed_over["repeated"] += 1
                continue
            for slot, decoding in zip(slots, decodings, strict=True):
                # With care: no file shall end this process.
                decoding.fill(data, slot, True, Stopwatch())
        except ImageFault as fault:
            passed_over[fault.status] += 1
            continue
        seen.add(digest)
        yield _Pair(*slots)


def _int8_backend(graph: Path, execution: Execution) -> Backend:
    from cifar_ray.models.backends.openvino_backend import OpenVinoBackend

    int8 = execution.model_copy(update={"backend": "openvino", "precision": "int8"})
    return OpenVinoBackend.of_int8_graph(graph, int8)


def _scores(
    pairs: Iterator[_Pair], reference: Backend, int8: Backend, bundle: Bundle, tell: Tell
) -> tuple[Scores, Scores]:
    """Return the probabilities (N×C) of both backends for the same images."""
    no_logits = np.zeros((0, len(bundle.spec.labels)), np.float32)
    expected, found, done = [no_logits], [no_logits], 0
    while chunk := list(islice(pairs, _AT_ONCE)):
        expected.append(reference.logits(np.stack([pair.reference for pair in chunk])))
        found.append(int8.logits(np.stack([pair.fast for pair in chunk])))
        done += len(chunk)
        tell("comparing labels", done)
    temperature = bundle.spec.temperature
    return (
        probabilities(np.concatenate(expected), temperature),
        probabilities(np.concatenate(found), temperature),
    )


def _self_test(bundle: Bundle, int8: Backend) -> tuple[tuple[float, ...], ...]:
    images = self_test.case_images(bundle.spec.self_test)
    logits = int8.logits(self_test.inputs(images, bundle.spec.preprocess))
    return tuple(self_test.remembered(row) for row in self_test.softmax(logits))


def describe(passed_over: Counter[str]) -> str:
    """Return how many files were passed over and why."""
    kinds = ", ".join(f"{number:,} {status}" for status, number in sorted(passed_over.items()))
    return f"Passed over: {kinds}."


def _too_few(asked: Question, found: int, passed_over: Counter[str]) -> InputError:
    return InputError(
        f"SOURCE {printable(asked.source)} has {found:,} different images that can be decoded, too "
        f"few to measure ranges on some and to compare the labels of {MINIMUM} others. Give a "
        f"store with {2 * MINIMUM} or more, of the kind that will be labelled."
        + (f" {describe(passed_over)}" if passed_over else "")
    )


def _disagreement(bundle: Bundle, comparison: Comparison, asked: Question) -> str:
    return (
        f"In int8, {bundle.id} gives the label of float32 for {comparison.agreement:.2%} of "
        f"{comparison.num_images:,} images, and {asked.least_agreement:.2%} are asked for; nothing "
        "is written. Measure ranges on more images (--images), or accept less (--min-agreement); "
        "without it, this model labels in bfloat16 where the CPU has it."
    )
