import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import torch
from torchvision import models

from cifar_ray.errors import InputError
from cifar_ray.models.pretrained import torchvision_bundle, with_todays_names

NAME = "squeezenet1_1"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CIFAR_RAY_CACHE", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return folder


def save_random_weights(name: str, path: Path, **options: object) -> Path:
    torch.manual_seed(0)
    torch.save(models.get_model(name, weights=None, **options).state_dict(), path)
    return path


def test_a_weights_file_gets_the_published_transforms_and_classes(tmp_path: Path) -> None:
    bundle = torchvision_bundle(NAME, save_random_weights(NAME, tmp_path / "w.pth"))
    published = models.SqueezeNet1_1_Weights.DEFAULT
    transforms = published.transforms()
    preprocess = bundle.spec.preprocess
    assert list(bundle.spec.labels) == published.meta["categories"]
    assert [preprocess.resize] == transforms.resize_size
    assert [preprocess.crop] == transforms.crop_size
    assert list(preprocess.mean) == transforms.mean
    assert list(preprocess.std) == transforms.std
    assert preprocess.interpolation == "bilinear"
    assert bundle.spec.network == f"torchvision:{NAME}"
    assert ":" not in bundle.id


def test_it_is_made_once_and_then_opened_without_torch(tmp_path: Path, cache: Path) -> None:
    weights = save_random_weights(NAME, tmp_path / "w.pth")
    bundle = torchvision_bundle(NAME, weights)
    assert [path.parent for path in (bundle.path,)] == [cache / "models"]
    code = f"""
import sys
from pathlib import Path
from cifar_ray.models.pretrained import torchvision_bundle, with_todays_names
print(torchvision_bundle({NAME!r}, Path({str(weights)!r})).digest)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == bundle.digest


def test_auxiliary_heads_are_left_out(tmp_path: Path) -> None:
    weights = save_random_weights(
        "googlenet", tmp_path / "w.pth", aux_logits=True, init_weights=False
    )
    bundle = torchvision_bundle("googlenet", weights)
    assert not any(key.startswith("aux") for key in bundle.network().state_dict())


@pytest.mark.parametrize(
    ("name", "today", "published"),
    [
        ("densenet121", ".norm1.", ".norm.1."),
        ("densenet121", ".conv2.", ".conv.2."),
        ("vit_b_32", ".mlp.0.", ".mlp.linear_1."),
        ("vit_b_32", ".mlp.3.", ".mlp.linear_2."),
    ],
)
def test_names_of_older_publications_become_todays(name: str, today: str, published: str) -> None:
    with torch.device("meta"):
        names = list(models.get_model(name, weights=None).state_dict())
    old = {key.replace(today, published): key for key in names}
    assert set(old) != set(names)
    assert list(with_todays_names(old)) == names
    assert with_todays_names(dict.fromkeys(names)) == dict.fromkeys(names)


def test_a_network_that_reads_the_version_of_its_state_dict_loads(tmp_path: Path) -> None:
    bundle = torchvision_bundle("mnasnet0_5", save_random_weights("mnasnet0_5", tmp_path / "w.pth"))
    bundle.check()


def test_weights_of_another_network_are_told_by_their_tensors(tmp_path: Path, cache: Path) -> None:
    weights = save_random_weights("squeezenet1_0", tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"of another shape: features\.0\.weight"):
        torchvision_bundle(NAME, weights)
    assert not list(cache.glob("models/*"))


def test_a_failing_download_tells_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy that nobody listens at: the download fails as it does without a network.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # It keeps the proxies of its first use.
    with pytest.raises(InputError, match=r"could not be downloaded.*--weights FILE"):
        torchvision_bundle(NAME)


def test_unknown_names_and_absent_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="torchvision:resnet50"):
        torchvision_bundle("resnet5")
    with pytest.raises(InputError, match="absent"):
        torchvision_bundle(NAME, tmp_path / "absent.pth")
