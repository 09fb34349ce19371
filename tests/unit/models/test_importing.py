import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cifar_ray.errors import InputError
from cifar_ray.images.labels import CIFAR10
from cifar_ray.models.importing import (
    change_preprocess,
    default_preprocess,
    import_weights,
    read_state_dict,
)
from cifar_ray.models.weights import find_faults
from tests.unit.models.bundles import make_network

LABELS = list(CIFAR10)
NETWORK = "cnn-bn"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return make_network(NETWORK)


def import_(weights: Path, name: str = NETWORK, labels: list[str] = LABELS) -> object:
    return import_weights(weights, name, labels, default_preprocess(name), weights.parent / "out")


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "module.", "_orig_mod.module."])
def test_a_state_dict_in_its_usual_wrappings_becomes_a_bundle(
    wrapped: str, network: nn.Module, tmp_path: Path
) -> None:
    state: dict = dict(network.state_dict())
    if wrapped.endswith("."):
        state = {f"{wrapped}{key}": value for key, value in state.items()}
    elif wrapped == "state_dict":
        state = {"state_dict": state, "epoch": 3}
    torch.save(state, tmp_path / "weights.pth")
    bundle = import_weights(
        tmp_path / "weights.pth", NETWORK, LABELS, default_preprocess(NETWORK),
        tmp_path / "out",
    )  # fmt: skip
    bundle.check()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(bundle.network().state_dict()[key], value, rtol=0, atol=0)
    assert bundle.spec.temperature is None
    assert list(bundle.spec.labels) == LABELS


def test_safetensors_in_half_precision_become_float32(network: nn.Module, tmp_path: Path) -> None:
    half = {key: value.half() if value.is_floating_point() else value
            for key, value in network.state_dict().items()}  # fmt: skip
    save_file(half, tmp_path / "weights.safetensors")
    bundle = import_(tmp_path / "weights.safetensors")
    dtypes = {parameter.dtype for parameter in bundle.network().parameters()}
    assert dtypes == {torch.float32}


def test_the_imported_network_labels_as_plain_torch_does(
    network: nn.Module, tmp_path: Path
) -> None:
    from cifar_ray.models.classifier import Classifier

    torch.save(network.state_dict(), tmp_path / "weights.pth")
    preprocess = default_preprocess(NETWORK)
    bundle = import_weights(tmp_path / "weights.pth", NETWORK, LABELS, preprocess, tmp_path / "out")
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    inputs = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        expected = network(inputs)
        ours = Classifier(bundle.network(), preprocess.mean, preprocess.std)(
            torch.from_numpy(images)
        )
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_all_faults_of_tensors_stand_in_one_message(network: nn.Module, tmp_path: Path) -> None:
    state = dict(network.state_dict())
    state["layer9.weight"] = torch.zeros(2)
    del state["3.weight"]
    state["0.weight"] = torch.zeros(64, 3, 7, 7)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(InputError) as caught:
        import_(tmp_path / "weights.pth")
    message = str(caught.value)
    assert "1 missing: 3.weight" in message
    assert "1 not known to the network: layer9.weight" in message
    assert "0.weight (64, 3, 7, 7) instead of (32, 3, 3, 3)" in message
    assert not (tmp_path / "out").exists()


def test_long_lists_of_tensors_are_cut_and_counted() -> None:
    given = {f"extra{number:02}": torch.zeros(1) for number in range(25)}
    (line,) = find_faults({}, given)
    assert line.startswith("25 not known to the network: extra00, extra01")
    assert line.endswith("extra09, and 15 more")


def test_labels_that_do_not_match_the_head_are_counted(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match="7 labels, but weights for 10 classes"):
        import_(tmp_path / "weights.pth", labels=LABELS[:7])


def test_counters_that_old_files_lack_are_no_fault(network: nn.Module, tmp_path: Path) -> None:
    state = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "weights.pth")
    import_(tmp_path / "weights.pth")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_nothing_but_tensors_is_unpickled(network: nn.Module, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "trap": Trap(tmp_path / "sprung")}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="state_dict of tensors alone"):
        read_state_dict(tmp_path / "w.pth")
    torch.save(network, tmp_path / "whole.pth")
    with pytest.raises(InputError, match="state_dict of tensors alone"):
        read_state_dict(tmp_path / "whole.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02}q\x00.", bytes(5000)])
def test_bytes_that_are_no_weights_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_state_dict(tmp_path / name)


def test_a_zip_that_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(InputError, match=r"w\.pt"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [{"lr": 0.1, "w": torch.zeros(1)}, [torch.zeros(1)], {}])
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds"):
        read_state_dict(tmp_path / "w.pth")


def test_an_absent_file_an_existing_place_and_a_wrong_network_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights file"):
        import_(tmp_path / "absent.pth")
    with pytest.raises(InputError, match="resnet19"):
        import_weights(
            tmp_path / "w.pth", "resnet19", LABELS, default_preprocess("resnet18"), tmp_path / "o"
        )
    with pytest.raises(InputError, match="exists already"):
        import_weights(
            tmp_path / "w.pth", "resnet18", LABELS, default_preprocess("resnet18"), tmp_path
        )


def test_preprocessing_is_changed_field_by_field() -> None:
    large = default_preprocess("resnet18")
    assert (large.resize, large.crop) == (256, 224)
    changed = change_preprocess(large, {"resize": 232, "mean": None}, squash=False)
    assert (changed.resize, changed.mean) == (232, large.mean)
    squashed = change_preprocess(default_preprocess("cnn-122k"), {}, squash=True)
    assert (squashed.squash, squashed.crop, squashed.input_size) == (32, None, 32)
    with pytest.raises(InputError, match="larger"):
        change_preprocess(large, {"resize": 200}, squash=False)
