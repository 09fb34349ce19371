"""Do the choices made for speed change labels? `python -m benchmarks.agreement`.

Labels different images by the reference (Pillow, decoded in full, eager float32) and as a run on
this machine would (its decoder with DCT scaling, its backend), with a trained model, and prints how
many top labels agree; beside it the same after the images were shuffled, which is what chance would
give. `crops`: parts of the photos, 512×384 or `--enlarge` times that, as JPEG; `large`: the photos
at 12 megapixels. The model is the one in the box, or a bundle's folder, such as what is trained on
`benchmarks.scenes`.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.scenes import crops
from benchmarks.stores import large
from cifar_ray.config.execution import REFERENCE, Execution, ExecutionRequest
from cifar_ray.images.decode import decode
from cifar_ray.models.backends import open_backend, resolve_execution
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.quantization import NEAR_TIE, compare
from cifar_ray.models.scoring import probabilities

ON_CPU = REFERENCE.model_copy(update={"device": "cpu", "backend": "torch"})
FAST = ExecutionRequest(device="cpu")


def large_photos() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as name:
        large(Path(name))
        for path in sorted(Path(name).iterdir()):
            yield path.read_bytes()


def inputs(files: list[bytes], bundle: Bundle, execution: Execution) -> np.ndarray:
    preprocess = bundle.spec.preprocess
    options = preprocess.decode_options(execution.decoder, execution.decoder_scaling)
    return np.stack([preprocess.apply(decode(data, options).pixels) for data in files])


def scores(files: list[bytes], bundle: Bundle, request: ExecutionRequest) -> np.ndarray:
    """Return N×C probabilities, calibrated."""
    execution = resolve_execution(request, bundle.spec)
    logits = open_backend(bundle, execution).logits(inputs(files, bundle, execution))
    return probabilities(logits, bundle.spec.temperature)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", choices=("crops", "large"), default="crops")
    parser.add_argument("--model", default="box", help="box, or a bundle's folder")
    parser.add_argument("--number", type=int, default=2000, help="of crops")
    parser.add_argument("--enlarge", type=int, default=1, help="factor of the crops' sides")
    arguments = parser.parse_args()
    bundle = Bundle.default() if arguments.model == "box" else Bundle.load(arguments.model)
    if arguments.images == "crops":
        files = [data for _, data in crops(arguments.number, enlarge=arguments.enlarge)]
    else:
        files = list(large_photos())
    reference, fast = scores(files, bundle, ON_CPU), scores(files, bundle, FAST)
    judged = compare(reference, fast)
    commonest = Counter(reference.argmax(axis=1).tolist()).most_common(1)[0][1]
    execution = resolve_execution(FAST, bundle.spec)
    print(
        f"{len(files):,} different images ({arguments.images}, enlarged {arguments.enlarge} times),"
        f" {bundle.id}: "
        f"{execution.decoder} scaled and {execution.backend} {execution.precision} give the label "
        f"of the reference for {judged.agreement:.2%}; shuffled "
        f"{judged.shuffled_agreement:.2%}; the commonest label has "
        f"{commonest / len(files):.0%}; confidence differs by "
        f"{judged.largest_difference:.3f} at most; near-ties (within {NEAR_TIE}): "
        f"{judged.near_ties:.1%}."
    )


if __name__ == "__main__":
    main()
