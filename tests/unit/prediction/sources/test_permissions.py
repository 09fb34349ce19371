"""Folders without permission, as a user meets them at the root of a disk: `lost+found`."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.permissions import bound

LIST = """
import sys
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import InputError
from cifar_ray.prediction.sources import Entry, Skipped, find_source, open_source

config = LabellingConfig(exclude=tuple(sys.argv[2:]))
try:
    source = open_source(find_source(sys.argv[1], None, config), config)
    for item in source.listing(0).entries(None):
        if isinstance(item, Entry | Skipped):
            print(item.key if isinstance(item, Entry) else item.kind)
except InputError as error:
    print(error)
"""


def listed(root: Path, *exclude: str) -> list[str]:
    command = bound([sys.executable, "-c", LIST, str(root), *exclude])
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_folder_without_permission_is_left_out_as_the_error_says(
    tmp_path: Path, kind: str
) -> None:
    if kind == "folder":
        (tmp_path / "a.jpg").write_bytes(b"x")
    else:
        (tmp_path / "image").write_bytes(b"x")
        with tarfile.open(tmp_path / "b.tar", "w") as tar:
            tar.add(tmp_path / "image", "a.jpg")
        (tmp_path / "image").unlink()
    (tmp_path / "named only" / "inside").mkdir(parents=True)
    for name, mode in ((".Trash", 0), ("lost+found", 0), ("named only", 0o444)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name).chmod(mode)
    key = "a.jpg" if kind == "folder" else "b.tar/a.jpg"
    (told,) = listed(tmp_path)[-1:]
    assert told.startswith(f"Cannot read the folder {tmp_path}/lost+found: Permission denied.")
    assert told.endswith("or leave it out with --exclude 'lost+found/*'.")
    (told,) = listed(tmp_path, "lost+found/*")[-1:]
    assert told.endswith("or leave it out with --exclude 'named only/inside/*'.")
    found = listed(tmp_path, "lost+found/*", "named only/*")
    assert sorted(found) == ["(excluded)", "(excluded)", "(hidden)", key]
    (tmp_path / "named only").chmod(0o755)
