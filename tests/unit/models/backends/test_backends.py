import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cifar_ray.config.execution import Execution, ExecutionRequest
from cifar_ray.errors import InputError
from cifar_ray.models.backends import Backend, machine, open_backend, resolve_execution
from cifar_ray.models.bundle import Bundle
from tests.unit.models.bundles import make_bundle

BATCH = 8
HAS_OPENVINO = machine.installed_version("openvino") is not None
BACKENDS = [
    "torch",
    pytest.param(
        "openvino", marks=pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")
    ),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("models") / "bundle")


def resolve(bundle: Bundle, **asked: object) -> Execution:
    request = {"device": "cpu", "precision": "float32", "batch_size": BATCH}
    return resolve_execution(ExecutionRequest.model_validate({**request, **asked}), bundle.spec)


def images(count: int = BATCH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def reference(bundle: Bundle, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    from cifar_ray.models.classifier import Classifier

    preprocess = bundle.spec.preprocess
    classifier = Classifier(bundle.network(), preprocess.mean, preprocess.std)
    with torch.no_grad():
        logits, features = classifier.logits_and_features(torch.from_numpy(batch))
    assert features is not None
    return logits.numpy(), features.numpy()


@pytest.mark.parametrize("name", BACKENDS)
def test_float32_gives_the_reference(name: str, bundle: Bundle, cache: Path) -> None:
    backend = open_backend(bundle, resolve(bundle, backend=name), cache)
    batch = images()
    outputs = backend.run(batch)
    logits, features = reference(bundle, batch)
    assert outputs.features is not None
    assert outputs.logits.dtype == outputs.features.dtype == np.float32
    np.testing.assert_allclose(outputs.logits, logits, atol=1e-4)
    np.testing.assert_allclose(outputs.features, features, atol=1e-4)


@pytest.mark.parametrize("name", BACKENDS)
def test_many_batches_in_flight_keep_their_own_outputs(
    name: str, bundle: Bundle, cache: Path
) -> None:
    backend = open_backend(bundle, resolve(bundle, backend=name, threads=2), cache)
    batches = [images(seed=seed) for seed in range(6)]
    expected = [backend.run(batch).logits for batch in batches]
    buffer = np.empty_like(batches[0])
    pending = []
    for batch in batches:
        buffer[...] = batch  # a caller may use its buffer again
        pending.append(backend.submit(buffer))
    for handle, logits in reversed(list(zip(pending, expected, strict=True))):
        np.testing.assert_array_equal(backend.result(handle).logits, logits)


@pytest.mark.parametrize("name", BACKENDS)
def test_outputs_do_not_depend_on_slot_or_neighbours(
    name: str, bundle: Bundle, cache: Path
) -> None:
    backend = open_backend(bundle, resolve(bundle, backend=name), cache)
    batch = images()
    expected = backend.run(batch).logits
    np.testing.assert_array_equal(backend.run(batch[::-1].copy()).logits[::-1], expected)
    alone = np.zeros_like(batch)
    alone[5] = batch[2]
    np.testing.assert_array_equal(backend.run(alone).logits[5], expected[2])


@pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")
def test_openvino_gives_the_same_bytes_with_one_thread_and_two(bundle: Bundle, cache: Path) -> None:
    outputs = [
        open_backend(bundle, resolve(bundle, backend="openvino", threads=threads), cache).run(
            images()
        )
        for threads in (1, 2)
    ]
    np.testing.assert_array_equal(outputs[0].logits, outputs[1].logits)
    np.testing.assert_array_equal(outputs[0].features, outputs[1].features)


def test_eager_bfloat16_stays_near_float32(bundle: Bundle) -> None:
    execution = resolve(bundle, backend="torch", precision="bfloat16")
    logits, _ = reference(bundle, images())
    np.testing.assert_allclose(
        open_backend(bundle, execution).run(images()).logits, logits, atol=0.2
    )


@pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")
def test_a_cached_graph_runs_without_torch(bundle: Bundle, tmp_path: Path) -> None:
    execution = resolve(bundle, backend="openvino")
    expected = open_backend(bundle, execution, tmp_path).run(images()).logits
    code = f"""
import sys
import numpy as np
from pathlib import Path
from cifar_ray.config.execution import Execution
from cifar_ray.models.backends import open_backend
from cifar_ray.models.bundle import Bundle
execution = Execution.model_validate_json({execution.model_dump_json()!r})
backend = open_backend(Bundle.load({str(bundle.path)!r}), execution, Path({str(tmp_path)!r}))
batch = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
sys.stdout.buffer.write(backend.run(batch).logits.tobytes())
assert "torch" not in sys.modules and "openvino_telemetry.main" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == expected.tobytes()


@pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")
def test_a_graph_is_cached_once_for_each_batch_size_and_bundle(
    bundle: Bundle, tmp_path: Path
) -> None:
    for batch_size in (1, 1, 2):
        open_backend(bundle, resolve(bundle, backend="openvino", batch_size=batch_size), tmp_path)
    graphs = list((tmp_path / "graphs").iterdir())
    assert len(graphs) == 2
    assert all(
        sorted(p.name for p in graph.iterdir()) == ["graph.bin", "graph.xml"] for graph in graphs
    )


@pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")
def test_a_damaged_cached_graph_is_made_again(bundle: Bundle, tmp_path: Path) -> None:
    execution = resolve(bundle, backend="openvino")
    expected = open_backend(bundle, execution, tmp_path).run(images()).logits
    (xml,) = tmp_path.glob("graphs/*/graph.xml")
    xml.write_bytes(xml.read_bytes()[:1000])
    np.testing.assert_array_equal(
        open_backend(bundle, execution, tmp_path).run(images()).logits, expected
    )


def test_a_backend_that_computes_something_else_is_refused(bundle: Bundle) -> None:
    backend: Backend = open_backend(bundle, resolve(bundle, backend="torch"))
    cases = bundle.spec.self_test
    turned = [case.model_copy(update={"probabilities": case.probabilities[::-1]}) for case in cases]
    wrong = bundle.spec.model_copy(update={"self_test": tuple(turned)})
    with pytest.raises(InputError, match="self-test"):
        backend.check(wrong)
