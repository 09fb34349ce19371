"""Chooses how to compute, once, when a run is planned; and opens a backend that does just that."""

from pathlib import Path

from cifar_ray.config.execution import (
    BackendName,
    DecoderName,
    Device,
    Execution,
    ExecutionRequest,
    Precision,
)
from cifar_ray.errors import InputError
from cifar_ray.models.backends import machine
from cifar_ray.models.backends.base import Backend
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.bundle_spec import BundleSpec
from cifar_ray.models.cache import cache_folder

_LARGE_INPUT = 128
_BATCH_SIZES = {"cpu": {"small": 64, "large": 16}, "cuda": {"small": 2048, "large": 256}}
_LIBRARIES = ("numpy", "pillow", "pyarrow", "torch")
"""Decide bytes with every backend: torch makes the graph that OpenVINO runs."""


def resolve_execution(request: ExecutionRequest, spec: BundleSpec) -> Execution:
    """Decide what the request leaves open, for this machine and this model.

    Loads neither torch nor OpenVINO unless a GPU is asked for or may be there. Raises `InputError`
    for what this machine cannot do.
    """
    gpu = None if request.device == "cpu" else machine.gpu_name()
    if request.device == "cuda" and gpu is None:
        raise InputError("--device cuda: torch finds no GPU here. Leave it out, or give cpu.")
    device: Device = "cpu" if gpu is None else "cuda"
    instruction_set = gpu or machine.detect_instruction_set()
    precision = _precision(request, spec, device, instruction_set)
    backend = _backend(request, device, precision, instruction_set)
    decoder = _decoder(request)
    names = [*_LIBRARIES, *(name for name in (backend, decoder) if name not in _LIBRARIES)]
    size = "large" if spec.preprocess.input_size >= _LARGE_INPUT else "small"
    return Execution(
        backend=backend,
        precision=precision,
        device=device,
        batch_size=request.batch_size or _BATCH_SIZES[device][size],
        threads=request.threads,
        decoder=decoder,
        decoder_scaling=request.decoder_scaling,
        versions={name: machine.installed_version(name) or "absent" for name in sorted(names)},
        instruction_set=instruction_set,
    )


def open_backend(bundle: Bundle, execution: Execution, cache_dir: Path | None = None) -> Backend:
    """Load the bundle as `execution` says and run its self-test.

    Converted graphs are kept under `cache_dir`, by default the user's cache folder. Raises
    `InputError` that names what this machine cannot honour.
    """
    _refuse_if_unlike(execution)
    backend: Backend
    if execution.backend == "openvino":
        from cifar_ray.models.backends.openvino_backend import OpenVinoBackend

        graphs = (cache_dir or cache_folder()) / "graphs"
        backend = OpenVinoBackend.of_bundle(bundle, execution, graphs)
    else:
        from cifar_ray.models.backends.torch_backend import TorchBackend

        backend = TorchBackend(bundle, execution)
    backend.check(bundle.spec)
    return backend


def _precision(
    request: ExecutionRequest, spec: BundleSpec, device: Device, instruction_set: str
) -> Precision:
    if request.precision == "float16" and device == "cpu":
        raise InputError("--precision float16 needs a GPU; on a CPU give float32 or bfloat16.")
    if request.precision == "int8":
        _refuse_int8(request, spec, device)
    if request.precision != "auto":
        return request.precision
    if device == "cuda":
        import torch

        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if fast else "float16"
    openvino = request.backend != "torch" and machine.importable("openvino")
    if spec.int8 is not None and openvino and instruction_set in machine.FAST_INT8:
        return "int8"
    return "bfloat16" if instruction_set in machine.FAST_BFLOAT16 else "float32"


def _refuse_int8(request: ExecutionRequest, spec: BundleSpec, device: Device) -> None:
    if spec.int8 is None:
        raise InputError(
            f"--precision int8: this bundle of {spec.network} has no int8 graph. Make one with "
            "`cifar-ray quantize`, which tells how many labels it keeps, or leave the option out."
        )
    if device == "cuda" or request.backend == "torch":
        raise InputError("--precision int8 is computed by OpenVINO on a CPU: give --device cpu.")


def _backend(
    request: ExecutionRequest, device: Device, precision: Precision, instruction_set: str
) -> BackendName:
    reason = None
    if device == "cuda":
        reason = "it runs on CPUs only"
    elif not machine.importable("openvino"):
        reason = "the package openvino is not installed"
    elif precision == "bfloat16" and instruction_set not in machine.FAST_BFLOAT16:
        reason = f"it has no bfloat16 for {instruction_set}"
    if request.backend == "openvino" and reason is not None:
        raise InputError(f"OpenVINO cannot be used here: {reason}.")
    if request.backend != "auto":
        return request.backend
    return "torch" if reason else "openvino"


def _decoder(request: ExecutionRequest) -> DecoderName:
    if request.decoder == "pillow":
        return "pillow"
    if machine.importable("simplejpeg"):
        return "simplejpeg"
    if request.decoder == "simplejpeg":
        raise InputError("The package simplejpeg is not installed; take the decoder pillow.")
    return "pillow"


def _refuse_if_unlike(execution: Execution) -> None:
    here = (
        machine.gpu_name() or "no GPU"
        if execution.device == "cuda"
        else machine.detect_instruction_set()
    )
    differences = []
    if here != execution.instruction_set:
        differences.append(f"{execution.device} is {here}, not {execution.instruction_set}")
    for name, wanted in execution.versions.items():
        found = machine.installed_version(name) or "absent"
        if found != wanted:
            differences.append(f"{name} is {found}, not {wanted}")
    if differences:
        raise InputError(
            "This machine cannot go on with a run that was begun on another: "
            + "; ".join(differences)
            + ". Its rows would differ. Use a machine like the first, or start over with --fresh."
        )
