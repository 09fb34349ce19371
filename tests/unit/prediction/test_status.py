"""What the files of a run say of it: right numbers, few files opened, and exit codes to script."""

import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cifar_ray.cli.main import app
from cifar_ray.errors import InputError, Unfinished
from cifar_ray.prediction import status as status_module
from cifar_ray.prediction.status import run_status, spread
from cifar_ray.runs import LabellingRun
from cifar_ray.storage.lease import hold
from tests.drawing import draw_folder
from tests.unit.prediction.finished_run import FinishedRun, finish_run

NUM_IMAGES = 60
SHARD = 8


@pytest.fixture
def run(tmp_path: Path) -> FinishedRun:
    """60 images and a broken one, in 8 shards of which the last holds 5."""
    draw_folder(tmp_path / "images", count=NUM_IMAGES)
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no picture")
    return finish_run(tmp_path / "images", tmp_path / "out")


def reopen(run: FinishedRun, done: int, seconds_apart: float = 10.0) -> None:
    """Leave so many parts, the last one written now."""
    run.store.delete(LabellingRun.RECEIPT)
    folder = run.store.root / LabellingRun.PREDICTIONS
    parts = sorted(folder.iterdir())
    for part in parts[done:]:
        part.unlink()
    now = time.time()
    for number, part in enumerate(parts[:done]):
        at = now - seconds_apart * (done - 1 - number)
        os.utime(part, (at, at))


def test_a_sealed_run_is_complete(run: FinishedRun) -> None:
    found = run_status(run.store)
    assert found.sealed
    assert (found.images_done, found.images_listed) == (NUM_IMAGES + 1, NUM_IMAGES + 1)
    assert found.statuses == {"ok": NUM_IMAGES, "not_an_image": 1}


@pytest.mark.parametrize("exact", [True, False])
def test_an_open_run_is_as_far_as_its_parts(run: FinishedRun, exact: bool) -> None:
    reopen(run, done=5)
    with hold(run.store):
        found = run_status(run.store, exact)
    assert not found.sealed
    assert found.listing_ended
    assert (found.images_done, found.images_listed) == (5 * SHARD, NUM_IMAGES + 1)
    assert (found.shards_done, found.shards_listed) == (5, 8)
    assert sum(found.statuses.values()) == found.images_counted == 5 * SHARD
    # Four shards in the 40 seconds since the first one.
    assert found.images_per_second == pytest.approx(4 * SHARD / 40, rel=0.1)
    assert found.seconds_left == pytest.approx(21 / found.images_per_second)
    assert found.driver is not None
    assert (found.driver.process_id, found.driver.alive) == (os.getpid(), True)


def test_while_the_listing_runs_nobody_knows_what_is_left(run: FinishedRun) -> None:
    reopen(run, done=5)
    run.store.delete(LabellingRun.range_end(0))
    with hold(run.store):
        found = run_status(run.store)
    assert not found.listing_ended
    assert found.seconds_left is None
    assert found.images_per_second is not None


def test_without_a_driver_or_with_few_parts_there_is_no_time_left_to_tell(run: FinishedRun) -> None:
    reopen(run, done=5)
    assert run_status(run.store).seconds_left is None
    assert run_status(run.store).driver is None
    reopen(run, done=2)
    assert run_status(run.store).images_per_second is None
    reopen(run, done=0)
    assert run_status(run.store).images_done == 0


def test_only_a_sample_is_opened_and_its_numbers_are_near(
    run: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    reopen(run, done=8)
    monkeypatch.setattr(status_module, "SAMPLE", 3)
    opened: Counter[str] = Counter()
    real = run.store.open

    def count(name: str) -> object:
        opened[name.partition("/")[0]] += 1
        return real(name)

    monkeypatch.setattr(run.store, "open", count)
    found = run_status(run.store)
    assert opened == {LabellingRun.PREDICTIONS: 3, LabellingRun.MANIFEST: 1}
    assert found.images_counted == 2 * SHARD + 5
    assert not found.exact
    assert (found.images_done, found.images_listed) == (NUM_IMAGES + 1, NUM_IMAGES + 1)


def test_a_sample_is_spread_from_the_first_to_the_last() -> None:
    assert spread(range(100), 4) == [0, 33, 66, 99]
    assert list(spread(range(3), 4)) == [0, 1, 2]


def test_exit_codes_tell_sealed_open_and_none(run: FinishedRun, tmp_path: Path) -> None:
    runner = CliRunner()
    out = str(tmp_path / "out")
    sealed = runner.invoke(app, ["status", out, "--json"])
    assert sealed.exit_code == 0
    assert json.loads(sealed.stdout)["images_listed"] == NUM_IMAGES + 1
    assert runner.invoke(app, ["status", out, "--watch"]).exit_code == 0
    reopen(run, done=3)
    opened = runner.invoke(app, ["status", out, "--json"])
    assert isinstance(opened.exception, Unfinished)
    assert json.loads(opened.stdout)["images_done"] == 3 * SHARD
    assert "24 of 61" in runner.invoke(app, ["status", out]).stdout
    assert isinstance(runner.invoke(app, ["status", str(tmp_path)]).exception, InputError)
