"""OpenVINO on CPU: a static graph with normalisation inside, fed by asynchronous requests.

The graph is converted from the bundle once, which takes torch and some seconds, and kept under the
cache folder as XML and binary; loading it from there takes a fraction of a second and no torch.
"""

import hashlib
import shutil
import tempfile
import uuid
from collections import deque
from pathlib import Path
from typing import Any, Self

import numpy as np

from cifar_ray.config.execution import Execution
from cifar_ray.models.backends import telemetry
from cifar_ray.models.backends.base import Backend, Images, Outputs
from cifar_ray.models.bundle import INT8_GRAPH_FILE, Bundle

telemetry.keep_quiet()
import openvino as ov  # noqa: E402

_GRAPH_VERSION = 1
"""Raised when the graph changes that the same bundle is converted to."""
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""Of what is not in int8."""


class OpenVinoBackend(Backend):
    """One stream a thread: images of one batch stay on one core, so outputs do not depend on it."""

    def __init__(self, compiled: Any, execution: Execution) -> None:
        self.execution = execution
        self.num_parallel = execution.threads
        self._compiled = compiled
        self._has_features = len(self._compiled.outputs) > 1
        self._idle: deque[Any] = deque()

    @classmethod
    def of_bundle(cls, bundle: Bundle, execution: Execution, cache_dir: Path) -> Self:
        """Take the bundle's int8 graph, or convert its weights, once for all under `cache_dir`."""
        if execution.precision == "int8":
            return cls.of_int8_graph(bundle.path / INT8_GRAPH_FILE, execution)
        try:
            return cls(_from_cache(bundle, execution, cache_dir), execution)
        except (OSError, RuntimeError):  # a cache that cannot be written to, or is full
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                graph = cached_graph(bundle, execution, Path(folder))
                return cls(_compile(ov.Core().read_model(graph), execution), execution)

    @classmethod
    def of_int8_graph(cls, graph: Path, execution: Execution) -> Self:
        """Take a graph whose batch is open, as `quantize` writes it."""
        model = ov.Core().read_model(graph)
        _, *image = model.input(0).partial_shape
        model.reshape([execution.batch_size, *image])
        return cls(_compile(model, execution), execution)

    def submit(self, images: Images) -> "_Request":
        """Start a batch; from any thread."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.start_async({0: images}, share_inputs=False)
        return _Request(self, request)

    def _collect(self, request: Any) -> Outputs:
        request.wait()
        logits = np.array(request.get_output_tensor(0).data)
        features = np.array(request.get_output_tensor(1).data) if self._has_features else None
        self._idle.append(request)
        return Outputs(logits, features)


class _Request:
    """An inference under way; its request goes back to the backend with the result."""

    def __init__(self, backend: OpenVinoBackend, request: Any) -> None:
        self._backend, self._request = backend, request

    def result(self) -> Outputs:
        """Wait for the outputs."""
        return self._backend._collect(self._request)


def _from_cache(bundle: Bundle, execution: Execution, cache_dir: Path) -> Any:
    graph = cached_graph(bundle, execution, cache_dir)
    try:
        return _compile(ov.Core().read_model(graph), execution)
    except RuntimeError:  # a damaged file; whether it was, the second try tells
        shutil.rmtree(graph.parent)
    graph = cached_graph(bundle, execution, cache_dir)
    return _compile(ov.Core().read_model(graph), execution)


def cached_graph(bundle: Bundle, execution: Execution, cache_dir: Path) -> Path:
    """Return the graph's XML file, converted now if it is not in the cache."""
    versions = [execution.versions.get(name) for name in ("openvino", "torch")]
    key = repr((_GRAPH_VERSION, bundle.digest, execution.batch_size, versions))
    folder = cache_dir / f"{bundle.id}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    graph = folder / "graph.xml"
    if not graph.is_file():
        _convert_into(folder, bundle, execution.batch_size)
    return graph


def _convert_into(folder: Path, bundle: Bundle, batch_size: int) -> None:
    unfinished = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}")
    unfinished.mkdir(parents=True)
    try:
        from cifar_ray.models.backends.openvino_convert import convert  # torch

        convert(bundle, batch_size, unfinished / "graph.xml")
        unfinished.rename(folder)
    except OSError:
        if not (folder / "graph.xml").is_file():  # else another worker was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _compile(model: Any, execution: Execution) -> Any:
    return ov.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[execution.precision],
            "INFERENCE_NUM_THREADS": execution.threads,
            "NUM_STREAMS": execution.threads,
            # Two workers on one machine would pin themselves to the same cores.
            "ENABLE_CPU_PINNING": False,
        },
    )
