"""Places that this user may not use, of every kind that a verb takes: told as such, with code 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_ray.models.bundle import Bundle
from tests.drawing import draw_folder
from tests.permissions import bound

RUN = """
import json, sys
from cifar_ray.cli.main import run

for command in json.loads(sys.argv[1]):
    sys.argv = ["cifar-ray", *command]
    try:
        run()
    except SystemExit as end:
        print("ended with", end.code, flush=True)
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    draw_folder(tmp_path / "images", count=3)
    return tmp_path / "images"


def told(*commands: list[object], **variables: str) -> list[str]:
    """Run commands in one process, for which permissions hold; return what each said."""
    asked = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        bound([sys.executable, "-c", RUN, asked]),
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.stdout.split("\nended with ")


def test_a_place_that_may_not_be_used_is_named_with_code_2(images: Path, tmp_path: Path) -> None:
    locked, fixed, notes = tmp_path / "locked", tmp_path / "fixed", tmp_path / "notes.txt"
    notes.write_text("x")
    for folder, mode in ((locked, 0), (fixed, 0o555)):
        folder.mkdir()
        folder.chmod(mode)
    box = Bundle.default()
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(box.spec.labels))
    weights = ["import", box.path / "model.safetensors", "--network", box.spec.network]
    weights += ["--labels", labels, "--out"]
    denied, no_folder = "Permission denied", "Not a directory"
    expected = (
        (["predict", images, "--out", locked / "x"], locked / "x", denied),
        (["predict", images, "--out", fixed / "x"], fixed / "x", denied),
        (["predict", images, "--out", fixed], fixed, denied),
        (["predict", images, "--out", notes / "labels"], notes / "labels", no_folder),
        (["predict", locked / "x", "--out", tmp_path / "out"], locked / "x", denied),
        (["predict", images, "--out", tmp_path / "out", "--model", locked], locked, denied),
        (["status", locked / "x"], locked / "x", denied),
        ([*weights, locked / "x"], locked / "x", denied),
        ([*weights, fixed / "x"], fixed / "x", denied),
    )
    said = told(*(command for command, _, _ in expected))
    for number, (command, place, reason) in enumerate(expected):
        assert f"Error: Cannot use {place}: {reason}." in said[number], command
        assert said[number + 1].startswith("2"), command
    fixed.chmod(0o755)


def test_a_cache_that_cannot_be_written_to_is_done_without(images: Path, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    cache.mkdir(mode=0o555)
    command = ["predict", images, "--out", out, "--local"]
    said, code = told(command, CIFAR_RAY_CACHE=str(cache))
    assert code.startswith("0"), said
    assert f"Warning: Nothing can be kept in the cache {cache}: Permission denied." in said
    assert (out / "receipt.json").is_file()
