"""Places that this user may not use, of every kind that a verb takes: told as such, with code 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_ray.models.bundle import Bundle, save_bundle
from tests.drawing import draw_classes, draw_folder
from tests.permissions import bound
from tests.unit.models.bundles import make_network, make_spec

COLOURS = ("blue", "green", "red")
"""The classes that `draw_classes` draws."""
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
    classes, model, labelled = tmp_path / "classes", tmp_path / "model", tmp_path / "labelled"
    draw_classes(classes, each=2)
    save_bundle(model, make_network(num_classes=3), make_spec(labels=COLOURS))
    train = ["train", classes, "--recipe", "cnn-122k", "--out"]
    said = told(["predict", images, "--out", labelled, "--local"])
    assert said[1].startswith("0")
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
        ([*train, fixed / "x"], fixed / "x", denied),
        ([*train, locked / "x"], locked / "x", denied),
        (["evaluate", model, classes, "--out", fixed / "x"], fixed / "x", denied),
        (["export", labelled, "--csv", fixed / "x.csv"], fixed, denied),
        (["export", labelled, "--folders", fixed / "x"], fixed / "x", denied),
    )
    said = told(*(command for command, _, _ in expected))
    for number, (command, place, reason) in enumerate(expected):
        assert f"Error: Cannot use {place}: {reason}." in said[number], command
        assert said[number + 1].startswith("2"), command
    fixed.chmod(0o755)


def test_what_may_not_be_read_of_labelled_images_is_named_and_not_left_out(tmp_path: Path) -> None:
    for name in ("shut", "within", "image"):
        draw_classes(tmp_path / name, each=12)
    within = tmp_path / "within" / "red" / "more"
    within.mkdir()
    image = tmp_path / "image" / "red" / "03.png"
    for path in (tmp_path / "shut" / "red", within, image):
        path.chmod(0)
    save_bundle(
        tmp_path / "model",
        make_network(num_classes=3),
        make_spec(labels=COLOURS),
    )
    reasons = [f"Cannot read {tmp_path / 'shut' / 'red'}: Permission denied."] * 2
    reasons += [f"Cannot read {within}: Permission denied."] * 2
    reasons += [f"{image}: Permission denied", f"Cannot read {image}: Permission denied."]
    commands: list[list[object]] = []
    for name in ("shut", "within", "image"):
        data, out = tmp_path / name, tmp_path / f"run-{name}"
        commands.append(["train", data, "--recipe", "cnn-122k", "--out", out])
        commands.append(["evaluate", tmp_path / "model", data, "--out", tmp_path / "out"])
    said = told(*commands)
    for number, (command, reason) in enumerate(zip(commands, reasons, strict=True)):
        assert reason in said[number], command
        assert said[number + 1].startswith("2"), command
    for path in (tmp_path / "shut" / "red", within):
        path.chmod(0o755)


def test_a_cache_that_cannot_be_written_to_is_done_without(images: Path, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    cache.mkdir(mode=0o555)
    command = ["predict", images, "--out", out, "--local"]
    said, code = told(command, CIFAR_RAY_CACHE=str(cache))
    assert code.startswith("0"), said
    assert f"Warning: Nothing can be kept in the cache {cache}: Permission denied." in said
    assert (out / "receipt.json").is_file()
