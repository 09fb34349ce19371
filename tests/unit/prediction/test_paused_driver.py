"""A driver that is stopped for a while, and wakes beside the run that took over from it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_ray.prediction.verification.verify import verify
from cifar_ray.storage import FolderStore, lease
from tests.drawing import draw_folder
from tests.unit.cli.conftest import Cli, cli

__all__ = ["cli"]

# The command line, stopped behind the function of the pipeline that is named; on a machine of
# another name, for a stopped process of this one is not taken for gone.
PAUSING = """
import os, signal, sys
from cifar_ray.cli.main import run
from cifar_ray.prediction import pipeline
from cifar_ray.storage import lease
lease.platform.node = lambda: "elsewhere"
function = getattr(pipeline, sys.argv.pop(1))
def pause(*arguments):
    result = function(*arguments)
    os.kill(os.getpid(), signal.SIGSTOP)
    return result
setattr(pipeline, function.__name__, pause)
sys.argv[0] = "cifar-ray"
run()
"""


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` and `out`, a sealed run over them."""
    base = tmp_path_factory.mktemp("sealed")
    draw_folder(base / "images", count=20)
    command = [sys.executable, "-m", "cifar_ray", *predict(base / "images", base / "out")]
    subprocess.run(command, check=True, capture_output=True)
    return base


def predict(images: Path, out: Path) -> list[str]:
    options = ["--local", "--workers", "1", "--images-per-shard", "8"]
    return ["predict", str(images), "--out", str(out), *options]


def start_and_stop(function: str, images: Path, out: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", PAUSING, function, *predict(images, out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), process.communicate()
    return process


def state(out: Path) -> dict[str, bytes]:
    files = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a beat that stands still for a sign at once."""
    monkeypatch.setattr(lease, "STANDSTILL_S", 0.05)
    monkeypatch.setattr(lease, "LOOK_INTERVAL_S", 0.0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("function", ["unfit_parts", "draw_up"])
def test_a_driver_that_wakes_when_its_successor_has_sealed_changes_nothing(
    sealed: Path, tmp_path: Path, cli: Cli, function: str
) -> None:
    out = Path(shutil.copytree(sealed / "out", tmp_path / "out"))
    (out / "receipt.json").unlink()
    parts = sorted((out / "predictions").iterdir())
    whole = parts[1].read_bytes()
    if function == "unfit_parts":
        shutil.copy(parts[0], parts[1])  # To be deleted, as the driver finds, and is stopped.
    paused = start_and_stop(function, sealed / "images", out)
    code, told = cli(*predict(sealed / "images", out))
    assert code == 0, told
    before = state(out)
    assert before["predictions/" + parts[1].name] == whole
    paused.send_signal(signal.SIGCONT)
    said, _ = paused.communicate()
    assert paused.returncode == 4, said
    assert "taken over" in said
    assert state(out) == before
    assert verify(FolderStore(out), lambda rows: None).differences == ()
