"""From a bundle's float32 network to a graph that computes in int8, without training.

Weights are rounded per channel, activations by ranges that are measured on images (B. Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
arXiv:1712.05877), and biases are corrected for what the rounding shifts (M. Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721). NNCF
does all three; only making such a graph needs it, running one does not.
"""

import contextlib
import io
import logging
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifar_ray.errors import InputError
from cifar_ray.models.backends import telemetry
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.bundle_spec import Comparison

NEAR_TIE = 0.02
_BATCH = 16
"""Images at once while ranges are measured."""


def require_nncf() -> None:
    """Raise `InputError` that says how to install what is missing."""
    for package in ("openvino", "nncf"):
        if find_spec(package) is None:
            raise InputError(
                f"Quantizing needs the package {package}, which is not installed here:"
                ' pip install "cifar-ray[int8]". Labelling with the result does not need nncf.'
            )


def quantize(bundle: Bundle, images: NDArray[np.uint8], graph: Path) -> str:
    """Write `graph` (.xml, its .bin beside it); return the version of what made it.

    It takes B×S×S×3 uint8 with B open. `images` (N×S×S×3 uint8) are what the ranges of activations
    are measured on.
    """
    telemetry.keep_quiet()
    # NNCF draws bars on a stdout that is not its own, and makes torch miss a CUDA compiler.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        # NNCF makes every later logger of the process one of its own class.
        logger_class = logging.getLoggerClass()
        import nncf
        import openvino as ov

        logging.setLoggerClass(logger_class)

        from cifar_ray.models.backends.openvino_convert import convert

        # Not NNCF's own function for it, which silences the handlers of the whole process.
        logging.getLogger("nncf").setLevel(logging.ERROR)
        converted = Path(folder) / "graph.xml"
        convert(bundle, None, converted)
        batches = [images[at : at + _BATCH] for at in range(0, len(images), _BATCH)]
        model = nncf.quantize(
            ov.Core().read_model(converted),
            nncf.Dataset(batches),
            subset_size=len(batches),
            # Slower to make, but keeps more labels: 0.4 points of them with the model in the box.
            fast_bias_correction=False,
        )
        ov.save_model(model, graph, compress_to_fp16=False)
        version: str = nncf.__version__
        return version


def compare(reference: NDArray[np.float32], fast: NDArray[np.float32]) -> Comparison:
    """Hold probabilities (N×C) of the same images against each other."""
    expected, found = reference.argmax(axis=1), fast.argmax(axis=1)
    shuffled = np.random.default_rng(0).permutation(found)
    ranked = np.sort(reference, axis=1)
    return Comparison(
        num_images=len(expected),
        agreement=float((expected == found).mean()),
        shuffled_agreement=float((expected == shuffled).mean()),
        near_ties=float((ranked[:, -1] - ranked[:, -2] < NEAR_TIE).mean()),
        largest_difference=float(np.abs(reference - fast).max()),
    )
