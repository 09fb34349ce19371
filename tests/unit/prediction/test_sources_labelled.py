"""The same images in every form of a store, labelled by the model in the box: the same rows."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import InputError
from cifar_ray.prediction.classify import Classifying
from cifar_ray.prediction.engine import RunEvent
from cifar_ray.prediction.pipeline import label
from cifar_ray.prediction.plan import Request, make_plan
from cifar_ray.prediction.receipt import Receipt
from cifar_ray.prediction.renewal.history import reopen
from cifar_ray.prediction.shards import RunShards
from cifar_ray.prediction.worker import equip
from cifar_ray.storage import open_store
from tests.drawing import draw_folder
from tests.unit.prediction.sources.forms import FORMS, is_manifest, make_form

SAME = ("key", "sha256", "status", "error", "width", "height", "label", "confidence", "size_bytes")
BROKEN = {"a/empty.jpg": b"", "b/text.jpg": b"no picture", "c.heic": b"\0\0\0\x18ftypheic" * 4}


class InThisProcess:
    """An engine of one worker in this process, which has loaded torch once for all runs."""

    def run(self, shards: RunShards) -> Iterator[RunEvent]:
        todo = iter([shard.name for shard in shards if not shard.done])
        equipment = equip(open_store(shards.destination), shards.source)
        yield from Classifying(equipment, lambda wait: next(todo, None)).run()  # type: ignore[misc]


def make_store(folder: Path, count: int) -> None:
    draw_folder(folder, count)
    for name, data in BROKEN.items():
        (folder / name).write_bytes(data)
    (folder / "notes.txt").write_text("notes")


def run(source: Path, out: Path, root: Path | None, shard: int, columns: str = "") -> Receipt:
    config = LabellingConfig(
        images_per_shard=shard, columns=tuple(columns.split(",")) if columns else ()
    )
    request = Request(
        str(source),
        str(out),
        None,
        None,
        config,
        ExecutionRequest(),
        root=None if root is None else str(root),
    )
    plan = make_plan(request)
    return label(plan, InThisProcess(), 1.0, lambda progress: None)


def rows(out: Path) -> list[dict[str, object]]:
    table = pq.read_table(out / "predictions", columns=list(SAME))
    return sorted(table.to_pylist(), key=lambda row: str(row["key"]))


def assert_the_same_rows_in_every_form(tmp_path: Path, count: int, shard: int) -> None:
    folder = tmp_path / "images"
    make_store(folder, count)
    of_folder = run(folder, tmp_path / "of-folder", None, shard)
    expected = rows(tmp_path / "of-folder")
    assert of_folder.listed == len(expected) == count + len(BROKEN)
    assert len({row["label"] for row in expected}) > 3
    for form in FORMS:
        source = make_form(form, folder, tmp_path / "forms")
        root = folder if is_manifest(form) else None
        receipt = run(source, tmp_path / f"of-{form}", root, shard)
        assert rows(tmp_path / f"of-{form}") == expected, form
        counts = ("found", "skipped", "listed", "ok", "failed", "repeated", "image_bytes")
        assert receipt.model_dump(include=set(counts)) == of_folder.model_dump(include=set(counts))


def test_the_same_images_give_the_same_rows_in_every_form(tmp_path: Path) -> None:
    assert_the_same_rows_in_every_form(tmp_path, count=200, shard=64)


def test_failed_images_that_are_read_again_leave_the_bytes_that_were_read_as_they_were(
    tmp_path: Path,
) -> None:
    make_store(tmp_path / "images", 20)
    # A Parquet file says the sizes of its images to those alone who read them.
    source = make_form("parquet", tmp_path / "images", tmp_path / "forms")
    before = run(source, tmp_path / "out", None, 16)
    reopen(open_store(str(tmp_path / "out")), "retry-failed")
    after = run(source, tmp_path / "out", None, 16)
    assert after.failed == before.failed != {}
    assert after.image_bytes == before.image_bytes > 0


@pytest.mark.slow
def test_two_thousand_images_give_the_same_rows_in_every_form(tmp_path: Path) -> None:
    assert_the_same_rows_in_every_form(tmp_path, count=2000, shard=300)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", ["tar", pytest.param("parquet", marks=pytest.mark.slow)])
def test_a_run_killed_in_a_container_loses_and_doubles_nothing(form: str, tmp_path: Path) -> None:
    make_store(tmp_path / "images", 100)
    source = make_form(form, tmp_path / "images", tmp_path / "forms")
    run(source, tmp_path / "whole", None, 16)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "cifar_ray", "predict", str(source), "--out", str(out)]
    command += ["--local", "--images-per-shard", "16", "--max-failure-rate", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and parts_written(out) < 2:
            psutil.wait_procs([psutil.Process(process.pid)], timeout=0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert parts_written(out) >= 2
    assert not (out / "receipt.json").exists()
    run(source, out, None, 16)
    for part in sorted((tmp_path / "whole" / "predictions").iterdir()):
        assert (out / "predictions" / part.name).read_bytes() == part.read_bytes()


def test_a_manifest_carries_columns_counts_repeats_and_must_not_change(tmp_path: Path) -> None:
    root, out = tmp_path / "images", tmp_path / "out"
    make_store(root, 10)
    keys = ["a/drawn-0000.jpg", "gone.jpg", "a/drawn-0000.jpg", "b/text.jpg", "a/drawn-0003.jpg"]
    numbers = pa.array([5, 4, 3, None, 1], pa.int16())
    pq.write_table(pa.table({"uri": keys, "number": numbers}), tmp_path / "m.parquet")
    receipt = run(tmp_path / "m.parquet", out, root, 2, "number")
    assert (receipt.listed, receipt.ok, receipt.repeated) == (5, 3, 1)
    assert receipt.failed == {"not_found": 1, "not_an_image": 1}
    table = pq.read_table(out / "predictions")
    assert table["key"].to_pylist() == keys
    assert table["number"].combine_chunks() == numbers
    failures = pq.read_table(out / "failures.parquet", columns=["key", "number"])
    assert failures.to_pylist() == [
        {"key": "gone.jpg", "number": 4},
        {"key": "b/text.jpg", "number": None},
    ]
    with pytest.raises(InputError, match="--columns"):
        run(tmp_path / "m.parquet", out, root, 2)
    pq.write_table(pa.table({"uri": keys[:4], "number": numbers[:4]}), tmp_path / "m.parquet")
    with pytest.raises(InputError, match="the manifest is not the one that it was"):
        run(tmp_path / "m.parquet", out, root, 2, "number")
    pq.write_table(pa.table({"uri": keys, "label": keys}), tmp_path / "m.parquet")
    with pytest.raises(InputError, match="label is a column of the rows already"):
        run(tmp_path / "m.parquet", tmp_path / "other", root, 2, "label")


def parts_written(out: Path) -> int:
    return len(list((out / "predictions").glob("*.parquet")))
