"""What a user does wrong ends with the code for it and a message that says what to do."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from cifar_ray.cli.boundary import report
from cifar_ray.errors import Unfinished
from cifar_ray.models.bundle import Bundle
from tests.drawing import draw_classes, draw_folder
from tests.unit.cli.conftest import Cli


@pytest.fixture
def images(tmp_path: Path) -> Path:
    draw_folder(tmp_path / "images", count=3)
    return tmp_path / "images"


def test_a_folder_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    code, told = cli("predict", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert code == 2
    assert "does not exist. Allowed are a folder of images, or s3://BUCKET/PREFIX;" in told
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_and_one_without_images(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, told = cli("predict", tmp_path / "empty", "--out", tmp_path / "out")
    assert code == 2
    assert "holds no images (no files found)" in told
    (tmp_path / "empty" / "a.txt").write_text("x")
    code, told = cli("predict", tmp_path / "empty", "--out", tmp_path / "out")
    assert code == 2
    assert "1 other files found" in told


def test_a_store_that_this_version_does_not_read(cli: Cli, tmp_path: Path) -> None:
    code, told = cli("predict", "gs://bucket/prefix", "--out", tmp_path / "out")
    assert code == 2
    assert "gs:// is not read" in told


def test_results_inside_the_source(cli: Cli, images: Path) -> None:
    code, told = cli("predict", images, "--out", images / "labels")
    assert code == 2
    assert "lies inside SOURCE" in told


def test_a_model_that_is_no_bundle(cli: Cli, images: Path, tmp_path: Path) -> None:
    code, told = cli("predict", images, "--out", tmp_path / "out", "--model", tmp_path / "model")
    assert code == 2
    assert "There is no bundle at" in told


def test_a_misspelt_network_of_torchvision(cli: Cli, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, told = cli("predict", images, "--out", out, "--model", "torchvision:resnet51")
    assert code == 2
    assert "resnet50" in told


@pytest.mark.parametrize("name", ["model.safetensors", "bundle.json"])
def test_a_bundle_with_a_flipped_byte(cli: Cli, images: Path, tmp_path: Path, name: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(Bundle.default().path, bundle)
    data = bytearray((bundle / name).read_bytes())
    position = data.index(b'"seed"' if b'"seed"' in data else b"a", len(data) // 2)
    data[position] ^= 1
    (bundle / name).write_bytes(data)
    code, told = cli("predict", images, "--out", tmp_path / "out", "--model", bundle)
    assert code == 2
    assert name in told


def test_a_bundle_of_another_version(cli: Cli, images: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(Bundle.default().path, bundle)
    record = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**record, "format_version": 99}))
    code, told = cli("predict", images, "--out", tmp_path / "out", "--model", bundle)
    assert code == 2
    assert "format 99" in told


def test_a_misspelt_recipe(cli: Cli, tmp_path: Path) -> None:
    code, told = cli("train", "cifar10", "--recipe", "cnn-122", "--out", tmp_path / "run")
    assert code == 2
    assert "Did you mean cnn-122k" in told
    assert not (tmp_path / "run").exists()


def test_options_that_exclude_each_other(cli: Cli, images: Path, tmp_path: Path) -> None:
    code, told = cli("predict", images, "--out", tmp_path / "out", "--limit", 1, "--sample", 1)
    assert code == 2
    assert "not both" in told


def test_a_misspelt_option_is_told_by_the_command_line_itself(cli: Cli, images: Path) -> None:
    code, told = cli("predict", images, "--ot", "x")
    assert code == 2
    assert "--out" in told


def test_a_name_that_would_steer_the_terminal_is_escaped(cli: Cli, tmp_path: Path) -> None:
    code, told = cli("predict", tmp_path / "a\x1b[2Jb", "--out", tmp_path / "out")
    assert code == 2
    assert "\x1b[2J" not in told
    assert "a\\x1b[2Jb" in told


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    cli: Cli, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cifar_ray.prediction.pipeline.seal", interrupt)
    code, told = cli("predict", images, "--out", tmp_path / "out", "--local")
    assert code == 130
    assert "the same command goes on" in told
    monkeypatch.undo()


def test_the_receipt_is_printed_as_json_and_again_for_a_finished_run(
    cli: Cli, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("predict", images, "--out", tmp_path / "out", "--local", "--json")
    for _ in range(2):
        code, told = cli(*arguments)
        assert code == 0
        assert json.loads(told[told.index("{") : told.rindex("}") + 1])["ok"] == 3
    assert "complete already" in told


def test_a_finished_run_with_too_many_failures_ends_with_3_each_time(
    cli: Cli, images: Path, tmp_path: Path
) -> None:
    (images / "empty.jpg").touch()
    arguments = ("predict", images, "--out", tmp_path / "out", "--local")
    for begins in ("Model ", f"{tmp_path / 'out'} is complete already"):
        code, told = cli(*arguments)
        assert code == 3
        assert "1 of 4 images failed (25.0%): 1 empty." in told
        assert begins in told
    code, told = cli(*arguments, "--max-failure-rate", 1)
    assert code == 0


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="terminals are of another kind here")
def test_fresh_without_a_terminal_asks_for_yes_and_deletes_nothing(
    cli: Cli, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text("{}")
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        code, told = cli("predict", images, "--out", out, "--fresh")
    assert code == 2
    assert "Give --yes too" in told
    answers, terminal = os.openpty()
    os.write(answers, b"n\n")
    with open(terminal) as asked:
        monkeypatch.setattr(sys, "stdin", asked)
        code, told = cli("predict", images, "--out", out, "--fresh")
    os.close(answers)
    assert code == 2
    assert "Nothing is deleted" in told
    assert [path.name for path in out.iterdir()] == ["run.json"]


def test_version(cli: Cli) -> None:
    code, told = cli("--version")
    assert code == 0
    assert told.startswith("cifar-ray 0.")


@pytest.mark.parametrize("verb", ["predict", "train", "recipes", "models", "import"])
def test_every_verb_has_help_with_an_example(cli: Cli, verb: str) -> None:
    code, told = cli(verb, "--help")
    assert code == 0
    assert f"cifar-ray {verb}" in told
    assert "Example" in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_that_nobody_expected_is_no_fault_of_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OSError, match="No space") as told,
    ):
        full.write(b"x")
    assert report(told.value) == Unfinished.exit_code
    assert "Free some space" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "images", "--out"),
        ("train", "classes", "--recipe", "cnn-122k", "--out"),
        ("tune", "classes", "--recipe", "cnn-122k", "--space", "optimizer", "--out"),
    ],
)
def test_a_place_below_a_file(
    cli: Cli,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_classes(tmp_path / "classes", each=2)
    (tmp_path / "file").write_text("")
    code, told = cli(*command, tmp_path / "file" / "run")
    assert code == 2
    assert "Cannot use" in told
    assert "Not a directory" in told
