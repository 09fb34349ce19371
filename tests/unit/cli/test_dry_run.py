"""`cifar-ray predict --dry-run`: it answers, and refuses, as the run itself would."""

import json
import tempfile
from pathlib import Path

import pytest

from cifar_ray.config.machine import usable_cores
from tests.drawing import draw_folder
from tests.unit.cli.conftest import Cli


@pytest.fixture
def images(tmp_path: Path) -> Path:
    draw_folder(tmp_path / "images", count=12)
    (tmp_path / "images" / "notes.txt").write_text("x")
    return tmp_path / "images"


def test_it_says_what_would_be_done_and_writes_nothing(
    cli: Cli, images: Path, tmp_path: Path
) -> None:
    asked = ("predict", images, "--out", tmp_path / "out", "--dry-run", "--json")
    code, told = cli(*asked, "--images-per-shard", 5, "--workers", 1000)
    assert code == 0, told
    preview = json.loads(told)
    assert (preview["found"], preview["listed"], preview["skipped"]) == (13, 12, {".txt": 1})
    assert (preview["parts"], preview["parts_done"], preview["complete"]) == (3, 0, False)
    assert preview["seconds"] > 0
    assert preview["basis"].endswith(f"for 1000 on {usable_cores()} cores")
    assert not (tmp_path / "out").exists()
    code, told = cli(*asked, "--workers", 1)
    assert json.loads(told)["basis"] == "from 12 images on one worker, for 1"


def test_the_folder_of_temporary_files_may_lie_inside_source(
    cli: Cli, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(images))
    everything = ("--include", "*", "--exclude", "*.txt", "--json")
    code, told = cli("predict", images, "--out", tmp_path / "out", "--dry-run", *everything)
    assert code == 0, told
    assert json.loads(told)["basis"].startswith("from 12 images")
    code, told = cli("plan", images, "--workers", 1, *everything)
    assert code == 0, told
    assert '"listed": 12' in told
    assert sorted(path.name for path in images.iterdir() if path.is_dir()) == ["a", "b"]


def test_dest_is_looked_at_as_the_run_does(cli: Cli, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = ("predict", images, "--out", out, "--images-per-shard", 5)
    assert cli(*run, "--local")[0] == 0
    code, told = cli(*run, "--dry-run")
    assert code == 0, told
    assert "is complete already; nothing to do" in told
    (out / "receipt.json").unlink()
    (out / "predictions" / "part-0000-0000001.parquet").unlink()
    code, told = cli(*run, "--dry-run", "--json")
    assert code == 0, told
    preview = json.loads(told)
    assert (preview["parts_done"], preview["images_done"], preview["complete"]) == (2, 7, False)
    assert preview["seconds"] > 0
    for options, reason in (
        (("--top-k", 3), "--top-k: there 5, now 3"),
        (("--update",), "--dry-run does not look at"),
    ):
        code, told = cli(*run, *options, "--dry-run")
        assert code == 2
        assert reason in told
    code, told = cli("predict", images, "--out", images / "labels", "--dry-run")
    assert code == 2
    assert "lies inside SOURCE" in told
