"""`cifar-ray plan` over real files, by real processes, and what the run after it makes of it."""

import json
import shutil
from pathlib import Path

import pytest

from cifar_ray.config.prices import Prices, read_prices
from cifar_ray.errors import InputError
from tests.drawing import draw_folder
from tests.unit.cli.conftest import Cli


@pytest.fixture
def images(tmp_path: Path) -> Path:
    draw_folder(tmp_path / "images", count=12)
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "images" / "notes.txt").write_text("x")
    return tmp_path / "images"


def as_json(told: str) -> dict:
    return json.loads(told[told.index("{") : told.rindex("}") + 1])


def test_a_plan_is_kept_and_the_receipt_of_its_run_compares(
    cli: Cli, images: Path, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "EUR"\ncpu_hour = 1.0\n')
    out = tmp_path / "out"
    asked = ("--workers", 1, "--images-per-shard", 5, "--prices", prices, "--deadline", 1)
    code, told = cli("plan", images, "--out", out, *asked, "--json")
    assert code == 0, told
    found = as_json(told)
    assert (found["found"], found["listed"], found["skipped"]) == (14, 13, {".txt": 1})
    assert (found["parts"], found["workers"], found["sample"]) == (3, 1, 13)
    assert 0 < found["cpu_hours"]["low"] < found["cpu_hours"]["expected"]
    assert found["money"]["expected"] == pytest.approx(found["hours"]["expected"])
    assert (found["currency"], found["workers_for_deadline"]) == ("EUR", 1)
    size = sum(path.stat().st_size for path in images.rglob("*") if path.suffix != ".txt")
    assert (
        found["read_bytes"]["expected"]
        == sum(
            path.stat().st_size
            for path in images.rglob("*")
            if path.is_file() and path.suffix != ".txt"
        )
        <= size
    )
    assert set(found["stage_cpu_seconds"]) == {
        *("list", "fetch", "hash", "decode", "preprocess", "model", "write", "start", "end")
    }
    assert [path.name for path in out.iterdir() if path.name != "_tmp"] == ["forecast.json"]
    assert json.loads((out / "forecast.json").read_text()) == found

    labelled = ("--local", "--images-per-shard", 5, "--max-failure-rate", 1)
    code, told = cli("predict", images, "--out", out, *labelled, "--json")
    assert code == 0, told
    compared = as_json(told)["forecast"]
    assert compared["images"] == {"low": 13, "expected": 13, "high": 13, "actual": 13}
    assert compared["parts"]["actual"] == compared["parts"]["expected"] == 3
    assert compared["read_bytes"]["actual"] == found["read_bytes"]["expected"]
    assert compared["cpu_hours"]["expected"] == found["cpu_hours"]["expected"]
    assert compared["cpu_hours"]["actual"] > 0
    assert cli("verify", out)[0] == 0
    code, told = cli("plan", images, "--out", out)
    assert code == 2
    assert "holds a run already" in " ".join(told.split())


def test_a_plan_of_another_model_is_not_compared(cli: Cli, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("plan", images, "--out", out, "--workers", 1)[0] == 0
    kept = json.loads((out / "forecast.json").read_text())
    kept["bundle"]["digest"] = "0" * 64
    (out / "forecast.json").write_text(json.dumps(kept))
    code, told = cli("predict", images, "--out", out, "--local", "--max-failure-rate", 1, "--json")
    assert code == 0, told
    assert as_json(told)["forecast"] is None
    assert cli("verify", out)[0] == 0


def test_what_cannot_be_planned_is_told_before_anything_is_measured(
    cli: Cli, images: Path, tmp_path: Path
) -> None:
    code, told = cli("plan", images, "--out", images / "labels")
    assert code == 2
    assert "lies inside SOURCE" in told
    strange = tmp_path / "strange"
    shutil.copytree(images, strange)
    code, told = cli("plan", images, "--out", strange)
    assert code == 2
    assert "is not empty and holds no run" in told
    (tmp_path / "empty").mkdir()
    code, told = cli("plan", tmp_path / "empty")
    assert code == 2
    assert "holds no images" in told


def test_a_price_table_is_read_and_what_is_wrong_in_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text("gpu_hour = 2\n")
    assert read_prices(path) == Prices(gpu_hour=2.0)
    for text, told in (
        ("gpu_hours = 2", "Did you mean gpu_hour"),
        ("gpu_hour = -1", r"gpu_hour = -1: .*greater than or equal to 0"),
        ("gpu_hour = ", "is not TOML"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=told):
            read_prices(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_prices(tmp_path / "nowhere.toml")
