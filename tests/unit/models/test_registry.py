import subprocess
import sys

import pytest
import torch

from cifar_ray.errors import InputError
from cifar_ray.models import registry
from cifar_ray.models.torchvision_table import TORCHVISION

OURS = [name for name in registry.names() if not name.startswith("torchvision:")]
SMALL_TORCHVISIONS = ["torchvision:squeezenet1_1", "torchvision:googlenet", "torchvision:vit_b_32"]
SLOW = pytest.mark.slow
NEEDED = "cnn-122k cnn-2.9m cnn-bn cnn-3conv resnet-blocks resnet18 resnet50 vgg16 speednet-2m"


def num_parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_registry_has_what_is_promised() -> None:
    assert set(NEEDED.split()) <= set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_parameters_are_those_listed(name: str) -> None:
    spec = registry.get(name)
    with torch.device("meta"):
        network = spec.build(spec.num_classes)
    assert num_parameters(network) == spec.parameters


@pytest.mark.parametrize(("name", "parameters"), [("cnn-122k", 122_570), ("cnn-2.9m", 2_915_114)])
def test_report_networks_have_exactly_their_parameters(name: str, parameters: int) -> None:
    assert registry.get(name).parameters == parameters


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=SLOW if registry.get(name).parameters > 30_000_000 else ())
        for name in (*OURS, *SMALL_TORCHVISIONS)
    ],
)
def test_forward_gives_logits_and_state_dict_loads_strictly(name: str) -> None:
    spec = registry.get(name)
    network = registry.build(name, 7).eval()
    images = torch.zeros(2, 3, spec.input_size, spec.input_size)
    with torch.no_grad():
        logits = network(images)
    assert logits.shape == (2, 7)
    assert logits.dtype == torch.float32
    again = registry.build(name, 7).eval()
    again.load_state_dict(network.state_dict(), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(again(images), logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16"])
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    from torchvision import models

    with torch.device("meta"):
        ours, theirs = registry.build(name, 10), models.get_model(name, num_classes=10)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_cifar_stem_changes_conv1_alone(name: str) -> None:
    with torch.device("meta"):
        whole, small = registry.build(name, 10), registry.build(f"{name}-cifar", 10)
    theirs, ours = whole.state_dict(), small.state_dict()
    assert list(theirs) == list(ours)
    changed = [key for key in theirs if theirs[key].shape != ours[key].shape]
    assert changed == ["conv1.weight"]
    assert ours["conv1.weight"].shape == (64, 3, 3, 3)


def test_every_torchvision_classifier_is_listed_with_its_input_size() -> None:
    from torchvision import models

    published = {
        name: models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
        for name in models.list_models(module=models)
    }
    assert {name: size for name, (_, size) in TORCHVISION.items()} == published


@pytest.mark.parametrize("name", ["googlenet", "squeezenet1_1", "swin_t", "vit_h_14", "resnet50"])
def test_torchvision_parameters_are_those_listed(name: str) -> None:
    with torch.device("meta"):
        network = registry.build(f"torchvision:{name}", 1000)
    assert num_parameters(network) == registry.get(f"torchvision:{name}").parameters


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(InputError, match=r"resnet81.*resnet18"):
        registry.get("resnet81")


def test_listing_loads_no_torch() -> None:
    code = (
        "import sys; from cifar_ray.models import registry; registry.names();"
        "print([name for name in ('torch', 'torchvision', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
