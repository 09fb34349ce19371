"""What README and ARCHITECTURE.md say is so: commands run, files exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cifar_ray.models import registry
from tests.conftest import REPOSITORY
from tests.drawing import draw_folder

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
SEARCH = (REPOSITORY / "docs" / "search.md").read_text(encoding="utf-8")
RUN = re.compile(r"^<!-- run -->\n```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [*RUN.findall(README), *RUN.findall(SEARCH)]
CLASSES = ("round", "square", "striped")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what README's recipes start from, and `cifar-ray` on the PATH."""
    import torch

    home = tmp_path_factory.mktemp("home")
    draw_folder(home / "photos", count=20)
    (home / "photos" / "broken.jpg").write_bytes(b"no image")
    for number, name in enumerate(CLASSES):
        draw_folder(home / "classes" / name, count=12, seed=number)
    (home / "labels.txt").write_text("\n".join(CLASSES))
    torch.save(registry.get("resnet18").build(len(CLASSES)).state_dict(), home / "weights.pth")
    (home / "bin").mkdir()
    for name, target in (("cifar-ray", "python -m cifar_ray"), ("python", sys.executable)):
        program = home / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {target} "$@"\n')
        program.chmod(0o755)
    return home


# In the order of the pages, since a recipe may use what an earlier one made.
@pytest.mark.skipif(sys.platform == "win32", reason="runs a POSIX shell")
@pytest.mark.timeout(900)  # several starts of PyTorch each, perhaps on a busy machine
@pytest.mark.parametrize("block", BLOCKS, ids=[block.split(maxsplit=2)[1] for block in BLOCKS])
def test_commands_of_readme_run(block: str, home: Path) -> None:
    environment = os.environ | {
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        ["sh", "-euc", block], cwd=home, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for destination in re.findall(
        r"cifar-ray predict .*--out (\S+)(?!.*--dry-run)", block, re.MULTILINE
    ):
        assert (home / destination / "receipt.json").is_file()
        assert (home / destination / "report.html").is_file()


def test_recipes_of_readme_are_found() -> None:
    assert len(BLOCKS) == 9


def test_pictures_and_links_of_readme_lead_somewhere() -> None:
    for target in re.findall(r'(?:\]\(|src=")([^)#"]+)[)"]', README):
        assert (REPOSITORY / target).is_file(), target
    with Image.open(REPOSITORY / "docs" / "report.png") as picture:
        assert picture.width <= 1600
    assert (REPOSITORY / "docs" / "report.png").stat().st_size < 400_000


def test_make_targets_of_readme_exist() -> None:
    commands = re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", README, re.MULTILINE)
    targets = {name for pair in commands for name in pair if name}
    makefile = (REPOSITORY / "Makefile").read_text()
    assert {"demo", "test"} <= targets
    assert [name for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def test_files_named_in_architecture_exist() -> None:
    names = [name for name in re.findall(r"`([^`]+)`", ARCHITECTURE) if "/" in name or "." in name]
    files = [name for name in names if name not in ("run.json",)]
    assert len(files) > 30
    assert [name for name in files if not (REPOSITORY / name).exists()] == []
