import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from cifar_ray.errors import InputError
from cifar_ray.models import registry
from cifar_ray.models.bundle import Bundle, save_bundle
from cifar_ray.models.bundle_spec import EnergyQuantiles, TrainedOn
from cifar_ray.models.weights import round_weights, save_weights
from tests.unit.models.bundles import make_bundle, make_network, make_spec

OURS = [name for name in registry.names() if not name.startswith("torchvision:")]
SMALL = [name for name in OURS if registry.get(name).parameters < 12_000_000]
LARGE = [name for name in OURS if name not in SMALL]
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("models") / "bundle")


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return bundle.copy_to(tmp_path / "copy").path


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    trained_on = TrainedOn(
        dataset="drawn",
        num_images=3,
        image_width=(32, 64),
        image_height=(32, 48),
        energy=EnergyQuantiles(q01=0.1, q05=0.5, q50=2.5),
    )
    metrics = {"accuracy": 0.5, "per_class": [{"label": "cat", "recall": 0.25}]}
    spec = make_spec(temperature=1.25, metrics=metrics, trained_on=trained_on)
    network = make_network()
    bundle = save_bundle(tmp_path / "bundle", network, spec)
    again = Bundle.load(tmp_path / "bundle")
    assert again == bundle
    assert {name: getattr(again.spec, name) for name in type(spec).model_fields} == dict(spec)
    assert again.id == f"cnn-122k-{again.digest[:12]}"
    loaded = again.network()
    assert not loaded.training
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=0)


def test_bfloat16_weights_are_half_the_size_and_float32_when_loaded(tmp_path: Path) -> None:
    small = make_bundle(tmp_path / "small", weights_dtype="bfloat16")
    large = make_bundle(tmp_path / "large")
    sizes = [(bundle.path / "model.safetensors").stat().st_size for bundle in (small, large)]
    assert sizes[0] < 0.52 * sizes[1]
    loaded = small.network()
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    small.check()
    expected = large.network().state_dict()
    for key, value in loaded.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=2**-8, atol=0)


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=SLOW) for name in LARGE)])
def test_every_network_makes_a_bundle_that_loads_and_checks(name: str, tmp_path: Path) -> None:
    size = registry.get(name).input_size
    preprocess = {"squash": size, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    spec = make_spec(network=name, preprocess=preprocess)
    network = registry.build(name, 10)
    bundle = save_bundle(tmp_path / "bundle", network, spec)
    bundle.check()
    loaded = bundle.network().state_dict()
    assert list(loaded) == list(network.state_dict())


def test_the_digest_follows_from_content_alone(copy: Path, bundle: Bundle) -> None:
    record = copy / "bundle.json"
    record.write_text(json.dumps(json.loads(record.read_text())), newline="\r\n")
    assert Bundle.load(copy).digest == bundle.digest


def test_other_weights_or_other_labels_give_another_digest(tmp_path: Path, bundle: Bundle) -> None:
    spec = make_spec()
    other_weights = save_bundle(tmp_path / "w", make_network(seed=1), spec)
    other_labels = make_bundle(tmp_path / "l", labels=tuple("abcdefghij"))
    assert len({bundle.digest, other_weights.digest, other_labels.digest}) == 3


@pytest.mark.parametrize("name", ["model.safetensors", "bundle.json"])
def test_a_flipped_bit_anywhere_is_refused(name: str, copy: Path) -> None:
    path = copy / name
    whole = path.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 60)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=name):
            Bundle.load(copy)
    path.write_bytes(whole)
    Bundle.load(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "bundle.json"])
def test_a_missing_file_is_named(name: str, copy: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        Bundle.load(copy)


def test_a_place_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundle at"):
        Bundle.load(tmp_path / "absent")
    with pytest.raises(InputError, match="missing"):
        Bundle.load(tmp_path)


def test_another_format_version_is_told_with_what_to_do(copy: Path) -> None:
    record = copy / "bundle.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "format_version": 9}))
    with pytest.raises(InputError, match=r"format 9; .* reads format 1"):
        Bundle.load(copy)


def test_swapped_weights_of_the_same_shapes_are_refused(copy: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", labels=tuple("abcdefghij"))
    save_weights(make_network(seed=5), other.path / "model.safetensors", torch.float32)
    shutil.copyfile(other.path / "model.safetensors", copy / "model.safetensors")
    with pytest.raises(InputError, match="changed"):
        Bundle.load(copy)


def test_check_fails_when_the_network_computes_something_else(bundle: Bundle) -> None:
    preprocess = bundle.spec.preprocess.model_copy(update={"mean": (0.1, 0.2, 0.9)})
    spec = bundle.spec.model_copy(update={"preprocess": preprocess})
    with pytest.raises(InputError, match="self-test"):
        Bundle(bundle.path, spec, bundle.digest).check()


def test_a_copy_is_the_same_bundle_and_is_made_once(bundle: Bundle, tmp_path: Path) -> None:
    first = bundle.copy_to(tmp_path / "a" / "copy")
    assert first.digest == bundle.digest
    assert bundle.copy_to(tmp_path / "a" / "copy") == first
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["copy"]
    with pytest.raises(InputError, match="another bundle"):
        make_bundle(tmp_path / "other", labels=tuple("abcdefghij")).copy_to(first.path)


def test_saving_over_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        make_bundle(tmp_path)


def test_a_failed_save_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 of another shape: .*\(7, 64\) instead of \(10, 64\)"):
        save_bundle(tmp_path / "bundle", make_network(num_classes=7), make_spec())
    assert list(tmp_path.iterdir()) == []
    make_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    "changes", [{"temperature": 0.0}, {"metrics": {"loss": float("nan")}}, {"colour": "red"}]
)
def test_a_spec_that_makes_no_sense_is_refused(changes: dict) -> None:
    with pytest.raises(ValidationError):
        make_spec(**changes)


def test_loading_a_bundle_needs_no_torch(bundle: Bundle) -> None:
    code = (
        "import sys; from cifar_ray.models.bundle import Bundle;"
        f"Bundle.load({str(bundle.path)!r});"
        "print([name for name in ('torch', 'safetensors', 'openvino') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rounded_weights_are_those_that_a_bundle_gives_back(tmp_path: Path) -> None:
    network = make_network()
    bundle = save_bundle(tmp_path / "bundle", network, make_spec(weights_dtype="bfloat16"))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    round_weights(network, torch.bfloat16)
    stored = bundle.network().state_dict()
    assert all(torch.equal(stored[key], value) for key, value in network.state_dict().items())
    assert any(not torch.equal(stored[key], value) for key, value in before.items())
    assert (bundle.path / "model.safetensors").stat().st_mode & 0o044 == 0o044
