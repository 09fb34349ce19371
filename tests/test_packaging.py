"""The lock, the Makefile, and a wheel that works alone."""

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cifar_ray
from tests.conftest import REPOSITORY

LOCK = (REPOSITORY / "requirements.lock").read_text()
PINS = [Requirement(line.rstrip("\\ ")) for line in re.findall(r"^[a-z].*$", LOCK, re.MULTILINE)]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
DIRECT = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
PLATFORMS = {
    "Linux": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "Linux on ARM": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "Windows": {"sys_platform": "win32", "platform_machine": "AMD64"},
    "macOS on Apple silicon": {"sys_platform": "darwin", "platform_machine": "arm64"},
}
# Loaded by Python at its start: makes these as if they were never installed.
BARE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "boto3", "botocore", "openvino"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_lock_meets_every_requirement_once(platform: str, python: str) -> None:
    machine = PLATFORMS[platform] | {"python_version": python, "python_full_version": f"{python}.1"}
    pins = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate(machine)]
    versions = {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}
    assert len(versions) == len(pins)
    for wanted in map(Requirement, DIRECT):
        if wanted.marker is None or wanted.marker.evaluate(machine):
            assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), wanted


def test_lock_names_no_index_and_no_machine_and_hashes_everything() -> None:
    assert re.findall(r"https?:|file:|--[a-z-]*(?:index|links)|(?:^|\s)/", LOCK) == []
    assert len(re.findall(r" \\\n    --hash=sha256:", LOCK)) >= len(PINS)
    assert len(re.findall(r"^[a-z][^\n]* \\\n    --hash=sha256:", LOCK, re.MULTILINE)) == len(PINS)


def test_make_help_explains_every_target() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()
    shown = subprocess.run(
        ["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert [name for name in targets if not re.search(rf"make {name} +\w", shown)] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this clone."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    subprocess.run([*build, str(out)], cwd=REPOSITORY, check=True, capture_output=True)
    return next(out.glob(f"cifar_ray-{cifar_ray.__version__}-py3-none-any.whl"))


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    files = (path for path in (REPOSITORY / "cifar_ray").rglob("*") if path.is_file())
    names = {path.relative_to(REPOSITORY).as_posix() for path in files}
    names |= {f"cifar_ray/jobs/{path.name}" for path in (REPOSITORY / "jobs").glob("*.py")}
    expected = {name for name in names if "__pycache__" not in name and "/." not in name}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected
    box = "cifar_ray/models/box"
    assert {"cifar_ray/py.typed", f"{box}/bundle.json", f"{box}/model.safetensors"} <= held


def install(wheel: Path, home: Path) -> Path:
    """Install the wheel in a new environment that borrows our dependencies; return its Python.

    The dependencies come by a `.pth` line, and Python reads no `.pth` of a folder so added: the
    editable install of the clone stays out of sight.
    """
    venv.create(home, with_pip=False, symlinks=sys.platform != "win32")
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps"]
    subprocess.run([*uv, "--python", str(python), str(wheel)], check=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    ours, new = (
        Path(subprocess.check_output([exe, "-c", where], text=True).strip())
        for exe in (sys.executable, str(python))
    )
    (new / "borrowed.pth").write_text(f"{ours}\n")
    return python


@pytest.mark.parametrize("bare", [False, True], ids=["whole", "without ray, boto3, openvino"])
def test_wheel_labels_a_folder_outside_the_clone(
    wheel: Path, bare: bool, drawn_images: Path, tmp_path: Path
) -> None:
    python = install(wheel, tmp_path / "venv")
    if bare:
        script = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = subprocess.check_output([python, "-c", script], text=True).strip()
        Path(site, "sitecustomize.py").write_text(BARE)

    def run(*args: str) -> str:
        done = subprocess.run([python, *args], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    found = run("-c", "import cifar_ray, sys; print(cifar_ray.__file__, *sys.path, sep='\\n')")
    assert str(REPOSITORY / "cifar_ray") not in found
    assert str(REPOSITORY) not in found.splitlines()
    assert cifar_ray.__version__ in run("-m", "cifar_ray", "--version")

    run("-m", "cifar_ray", "predict", str(drawn_images), "--out", "labels", "--local")
    table = pq.read_table(tmp_path / "labels" / "predictions").to_pydict()
    images = {p.relative_to(drawn_images).as_posix() for p in drawn_images.rglob("*.*")}
    assert set(table["key"]) == images
    assert set(table["status"]) == {"ok"}
    assert all(table["label"])
