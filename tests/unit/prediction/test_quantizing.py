"""Bundles that label in int8: what they are made of, what they give, and when there is none."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cifar_ray.config.execution import REFERENCE, ExecutionRequest
from cifar_ray.errors import InputError
from cifar_ray.models import quantization
from cifar_ray.models.backends import machine, open_backend, resolve_execution
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.bundle_spec import Comparison
from cifar_ray.models.scoring import probabilities
from cifar_ray.prediction.quantizing import Question, quantize_bundle
from cifar_ray.training.evaluation.evaluate_bundles import evaluate_bundles
from tests.conftest import REPOSITORY
from tests.drawing import draw_folder
from tests.unit.models.bundles import make_bundle

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the package openvino")
BATCH = 8
FEW = {"num_calibration": 80, "num_compared": 250}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "images"
    draw_folder(folder, count=400)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture(scope="module")
def bundle(plain: Bundle, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("models") / "int8"
    return quantize_bundle(question(plain, images), folder, lambda what, done: None).bundle


def question(plain: Bundle, images: Path, **changes: object) -> Question:
    # Weights that nobody trained have near-ties, and what is asked of them here is little.
    fields = {"least_agreement": 0.5, **FEW, **changes}
    return Question(model=str(plain.path), source=str(images), **fields)  # type: ignore[arg-type]


def batch_of_noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8)


def ask(**fields: object) -> ExecutionRequest:
    return ExecutionRequest.model_validate({"device": "cpu", "batch_size": BATCH, **fields})


def test_it_labels_nearly_as_float32_does(bundle: Bundle, plain: Bundle) -> None:
    backend = open_backend(bundle, resolve_execution(ask(precision="int8"), bundle.spec))
    reference = open_backend(plain, resolve_execution(ask(precision="float32"), plain.spec))
    batch = batch_of_noise()
    scores = [probabilities(one.run(batch).logits, None) for one in (backend, reference)]
    assert np.abs(scores[0] - scores[1]).max() < 0.2
    assert not np.array_equal(scores[0], scores[1])


def test_what_was_measured_stands_in_it(bundle: Bundle, plain: Bundle) -> None:
    made = bundle.spec.int8
    assert made is not None
    assert made.num_calibration_images == 80
    assert made.comparison.num_images == 250
    assert 0.5 <= made.comparison.agreement <= 1
    assert made.comparison.shuffled_agreement < made.comparison.agreement
    assert bundle.digest != plain.digest
    assert bundle.spec.model_sha256 == plain.spec.model_sha256


def test_an_image_gets_the_same_scores_in_any_slot_batch_and_number_of_threads(
    bundle: Bundle,
) -> None:
    batch = batch_of_noise()
    order = np.random.default_rng(1).permutation(BATCH)
    outputs = []
    for threads, size in ((1, BATCH), (2, BATCH), (1, 4)):
        request = ask(precision="int8", threads=threads, batch_size=size)
        backend = open_backend(bundle, resolve_execution(request, bundle.spec))
        parts = [backend.run(batch[order][at : at + size]).logits for at in range(0, BATCH, size)]
        outputs.append(np.concatenate(parts))
    one_way = open_backend(bundle, resolve_execution(ask(precision="int8"), bundle.spec))
    straight = one_way.run(batch).logits
    for logits in outputs:
        assert np.array_equal(logits, straight[order])


def test_a_run_takes_int8_where_the_cpu_multiplies_it(
    bundle: Bundle, plain: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, expected in (("avx512_vnni", "int8"), ("avx2", "float32")):
        monkeypatch.setattr(machine, "detect_instruction_set", lambda name=name: name)
        assert resolve_execution(ask(), bundle.spec).precision == expected
        assert resolve_execution(ask(), plain.spec).precision == "float32"
    monkeypatch.setattr(machine, "detect_instruction_set", lambda: "avx512_vnni")
    assert resolve_execution(ask(backend="torch"), bundle.spec).precision == "float32"
    assert resolve_execution(ask(precision="float32"), bundle.spec).precision == "float32"


@pytest.mark.parametrize("asked", [{}, {"backend": "torch"}])
def test_int8_is_refused_without_a_graph_or_openvino(
    asked: dict[str, str], bundle: Bundle, plain: Bundle
) -> None:
    with pytest.raises(InputError, match="cifar-ray quantize" if not asked else "OpenVINO"):
        resolve_execution(ask(precision="int8", **asked), (bundle if asked else plain).spec)


def test_evaluate_judges_what_a_run_would_give(
    bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    labelled = tmp_path / "classes"
    for number, path in enumerate(sorted(images.rglob("*.png"))[:12]):
        folder = labelled / bundle.spec.labels[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.name)
    asked = REFERENCE.model_copy(update={"device": "cpu", "precision": "int8"})
    (found,) = evaluate_bundles([str(bundle.path)], str(labelled), tmp_path / "out", asked)
    assert found.metrics["computed_in"] == "int8"
    pixels = found.held_out.pixels(range(BATCH), bundle.spec.preprocess)
    backend = open_backend(bundle, resolve_execution(ask(precision="int8"), bundle.spec))
    assert np.array_equal(found.logits[:BATCH], backend.run(pixels).logits)


def test_a_copy_has_the_graph_and_damage_is_found(bundle: Bundle, tmp_path: Path) -> None:
    copy = bundle.copy_to(tmp_path / "copy")
    assert copy.digest == bundle.digest
    weights = copy.path / "int8.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match=r"int8\.bin was changed"):
        Bundle.load(copy.path)


def test_a_store_of_few_different_images_is_refused(
    plain: Bundle, images: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for number, path in enumerate(
        sorted(path for path in images.rglob("*") if path.is_file())[:100]
    ):
        for copy in range(4):  # the same content four times
            shutil.copyfile(path, few / f"{number}-{copy}{path.suffix}")
    (few / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"has 100 different images.*1 not_an_image, 300 repeated"):
        quantize_bundle(question(plain, few, num_compared=400), out, lambda what, done: None)
    assert not out.exists()


def test_nothing_is_written_where_labels_change(
    plain: Bundle, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = quantization.compare

    def one_changed(reference: np.ndarray, int8: np.ndarray) -> Comparison:
        turned = int8.copy()
        turned[0] = np.roll(reference[0], 1)
        return compare(reference, turned)

    monkeypatch.setattr(quantization, "compare", one_changed)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"gives the label of float32 for .*nothing is written"):
        quantize_bundle(question(plain, images, least_agreement=1.0), out, lambda what, done: None)
    assert not out.exists()


def test_nobody_is_told_of_it(plain: Bundle, tmp_path: Path) -> None:
    script = """
import sys
import numpy as np
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.quantization import quantize
from pathlib import Path

images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
quantize(Bundle.load(sys.argv[1]), images, Path(sys.argv[2]))
print([name for name in sys.modules if name.startswith("openvino_telemetry.")])
"""
    done = run([sys.executable, "-c", script, plain.path, tmp_path / "graph.xml"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_without_nncf_it_says_what_to_install(
    plain: Bundle, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None if name == "nncf" else name)
    with pytest.raises(InputError, match=r'pip install "cifar-ray\[int8\]"'):
        quantize_bundle(question(plain, images), tmp_path / "out", lambda what, done: None)


def test_the_command_makes_a_bundle_that_a_run_labels_with(
    plain: Bundle, images: Path, tmp_path: Path
) -> None:
    made, out = tmp_path / "made", tmp_path / "out"
    command = [sys.executable, "-m", "cifar_ray"]
    asked = ["quantize", plain.path, images, "--out", made, "--min-agreement", 0.5]
    sizes = ["--images", 100, "--compare", 250]
    done = run([*command, *asked, *sizes])
    assert done.returncode == 0, done.stderr
    assert "gives the label of float32 for" in " ".join(done.stdout.split())
    label = ["predict", images, "--out", out, "--model", made, "--precision", "int8", "--local"]
    done = run([*command, *label])
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["execution"]["precision"] == "int8"
    assert pq.read_table(out / "predictions").num_rows == 400


def run(command: list[object]) -> "subprocess.CompletedProcess[str]":
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=280)
