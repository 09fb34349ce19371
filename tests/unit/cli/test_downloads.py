"""The bar of a download, of real bytes from a server of ours on loopback."""

import io
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console

from cifar_ray.cli.downloads import download_bar
from cifar_ray.training.data import sources
from cifar_ray.training.data.download import BATCHES, download_cifar10
from tests.unit.cli.conftest import Cli
from tests.unit.training.data.test_download import Server
from tests.unit.training.data.test_download import server as server

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray has no package here")


def test_a_download_has_a_bar_and_what_is_there_has_none(server: Server, tmp_path: Path) -> None:
    for shown in (True, False):
        told = io.StringIO()
        with download_bar(
            "CIFAR-10", Console(file=told, force_terminal=True, highlight=False)
        ) as show:
            download_cifar10(tmp_path, show, server.archive(server.data))
        assert ("Downloading CIFAR-10, 0 MB" in told.getvalue()) == shown
        assert ("\u2501" in told.getvalue()) == shown


@pytest.fixture
def offered(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that CIFAR-10 is not in yet; the server has it."""
    monkeypatch.delenv("CIFAR_RAY_DATA", raising=False)
    monkeypatch.setenv("CIFAR_RAY_CACHE", str(tmp_path))
    ours = partial(download_cifar10, archive=server.archive(server.data))
    monkeypatch.setattr(sources, "download_cifar10", ours)
    return tmp_path / "data" / BATCHES


def test_training_says_that_it_downloads(cli: Cli, offered: Path, tmp_path: Path) -> None:
    code, told = cli("train", "cifar10", "--recipe", "cnn-122k", "--out", tmp_path / "out")
    assert "Downloading CIFAR-10" in told
    assert offered.is_dir()
    assert code == 2, told
    assert "the binary files are not of CIFAR-10" in told  # they are those of the test's server


@needs_ray
def test_it_downloads_before_a_ray_on_this_machine_trains(
    cli: Cli, offered: Path, tmp_path: Path
) -> None:
    ends_before_ray = ("--recipe", "vgg16-frozen", "--weights", tmp_path / "nowhere.pth")
    out = tmp_path / "out"
    code, told = cli("train", "cifar10", *ends_before_ray, "--out", out, "--address", "local")
    assert "Downloading CIFAR-10" in told
    assert offered.is_dir()
    assert code == 2, told
    assert "There is no weights file" in told


@needs_ray
def test_it_downloads_before_a_ray_on_this_machine_searches(
    cli: Cli, offered: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()  # so that it ends before Ray
    search = ("--recipe", "cnn-122k", "--space", "optimizer", "--out", tmp_path / "out")
    code, told = cli("tune", "cifar10", *search, "--address", "local")
    assert "Downloading CIFAR-10" in told
    assert offered.is_dir()
    assert code == 2, told
    assert "is not empty and holds no search" in told
