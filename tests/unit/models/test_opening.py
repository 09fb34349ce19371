"""A model by what users call it."""

import shutil
from pathlib import Path

import pytest

from cifar_ray.errors import InputError
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.opening import open_bundle
from cifar_ray.runs import TrainingRun


def test_a_bundle_is_found_by_its_folder_and_by_that_of_its_run(tmp_path: Path) -> None:
    box = Bundle.default()
    assert open_bundle(None).digest == box.digest
    run = TrainingRun(tmp_path / "run")
    shutil.copytree(box.path, run.bundle)
    assert open_bundle(str(run.bundle)).path == run.bundle
    assert open_bundle(str(tmp_path / "run")).path == run.bundle


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        open_bundle(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="resnet18"):
        open_bundle("torchvision:resnet81")


@pytest.mark.parametrize("place", [None, "runs/mine"])
def test_weights_for_a_model_that_has_its_own_are_refused(place: str | None) -> None:
    with pytest.raises(InputError, match="goes with --model torchvision:NAME"):
        open_bundle(place, Path("resnet18.pth"))
