"""Files that crash, stall or fill a decoder: real processes die of them, and no other file does."""

import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import ImageFault
from cifar_ray.images.decode import DecodeOptions, decode
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.prediction.care.careful_decoding import CarefulDecoding
from cifar_ray.prediction.care.marks import set_mark
from cifar_ray.prediction.care.watchdog import Limits, Watchdog
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.pipeline import label
from cifar_ray.prediction.plan import Plan, Request, make_plan
from cifar_ray.runs import LabellingRun
from tests.drawing import draw, draw_folder
from tests.hostile import hooked_path, hostile_png

CULPRIT = ("decode_failed", "decoding it crashes, does not end, or takes all memory")
PREPROCESS = Preprocess(resize=40, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
OPTIONS = DecodeOptions()
NUM_GOOD = 300
ENOUGH_MEMORY = 12 * 2**30


@pytest.fixture
def png(tmp_path: Path) -> bytes:
    path = tmp_path / "drawn.png"
    draw(random.Random(1), (48, 40), "RGB").save(path)
    return path.read_bytes()


def refuse() -> None:
    """Stand for the end of the worker where nothing may end it."""
    raise AssertionError("the worker is not to be ended for what a child does")


@pytest.fixture
def careful(monkeypatch: pytest.MonkeyPatch) -> Iterator[CarefulDecoding]:
    monkeypatch.setenv("PYTHONPATH", hooked_path())
    watchdog = Watchdog(Limits(seconds=2.0, memory_bytes=400 * 2**20), refuse, armed=False)
    decoding = CarefulDecoding(OPTIONS, PREPROCESS, watchdog)
    yield decoding
    watchdog.close()
    decoding.close()


def only_child(careful: CarefulDecoding) -> "subprocess.Popen[bytes]":
    (child,) = careful.children.values()
    return child.process


def test_a_child_gives_what_the_worker_would_give(careful: CarefulDecoding, png: bytes) -> None:
    pixels, width, height = careful.prepare(png)
    image = decode(png, OPTIONS)
    assert (width, height) == (image.width, image.height) == (48, 40)
    assert np.array_equal(pixels, PREPROCESS.apply(image.pixels))
    child = only_child(careful)
    for data in (b"", b"no picture", png[: len(png) // 2]):
        with pytest.raises(ImageFault) as expected:
            decode(data, OPTIONS)
        with pytest.raises(ImageFault) as found:
            careful.prepare(data)
        assert found.value.args == expected.value.args
    assert only_child(careful) is child


@pytest.mark.parametrize("deed", [b"crash", b"stall", b"hold", b"1gb"])
def test_the_file_that_ends_its_child_is_blamed_and_the_next_one_is_not(
    careful: CarefulDecoding, png: bytes, deed: bytes
) -> None:
    with pytest.raises(ImageFault) as fault:
        careful.prepare(hostile_png(png, deed))
    assert fault.value.args == CULPRIT
    assert careful.prepare(png)[1:] == (48, 40)


def test_a_child_that_somebody_else_kills_costs_no_image_its_label(
    careful: CarefulDecoding, png: bytes
) -> None:
    careful.prepare(png)
    first = only_child(careful)
    first.kill()
    first.wait()
    assert careful.prepare(png)[1:] == (48, 40)
    assert only_child(careful) is not first


def test_a_watchdog_counts_its_own_looks_so_that_a_suspended_machine_blames_nobody() -> None:
    ended = threading.Event()
    watchdog = Watchdog(Limits(seconds=0.5, memory_bytes=2**40), ended.set, armed=False)
    watchdog.begin(0)
    (watched,) = watchdog.watched.values()
    assert watched.until - watched.began == 6
    assert ended.wait(60)
    assert watchdog.ticks >= watched.until
    watchdog.end()
    watchdog.close()


def plan_of(source: Path, out: Path, **settings: float) -> Plan:
    config = LabellingConfig(images_per_shard=32, **settings)
    return make_plan(Request(str(source), str(out), None, None, config, ExecutionRequest()))


def run(plan: Plan, workers: int = 1) -> None:
    engine = LocalEngine(plan.store.uri, plan.source.reference, workers, store_timeout_s=1.0)
    label(plan, engine, 1.0, lambda progress: None)


def rows(out: Path) -> dict[str, dict]:
    return {row["key"]: row for row in pq.read_table(out / "predictions").to_pylist()}


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "predictions").iterdir())}


def mark_all(plan: Plan) -> None:
    """List the store, and mark every shard as if a worker had died over it."""
    manifest = Manifest(plan.store, plan.record.config.images_per_shard)
    for shard in manifest.shards(0, plan.source.listing(0)):
        assert not set_mark(plan.store, shard)


def put_among(good: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (good / name).write_bytes(data)


def test_done_with_care_or_not_a_run_has_the_same_bytes(tmp_path: Path) -> None:
    draw_folder(tmp_path / "store", count=60)
    put_among(tmp_path / "store", {"empty.png": b"", "text.jpg": b"no picture"})
    run(plan_of(tmp_path / "store", tmp_path / "fast"))
    careful = plan_of(tmp_path / "store", tmp_path / "careful")
    mark_all(careful)
    run(careful)
    assert parts(tmp_path / "careful") == parts(tmp_path / "fast")
    assert not (tmp_path / "careful" / LabellingRun.MARKS).exists()


def test_files_that_kill_or_stall_the_decoder_fail_alone_among_300_good_ones(
    tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    draw_folder(store, count=NUM_GOOD)
    deeds = {f"z-{deed.decode()}.png": hostile_png(png, deed) for deed in (b"crash", b"stall")}
    deeds["drawn-0150x.png"] = hostile_png(png, b"hold")
    put_among(store, deeds)
    monkeypatch.setenv("PYTHONPATH", hooked_path())
    run(plan_of(store, tmp_path / "out", decode_timeout_s=5.0), workers=2)
    found = rows(tmp_path / "out")
    assert {(found[name]["status"], found[name]["error"]) for name in deeds} == {CULPRIT}
    assert all(found[name]["sha256"] is not None for name in deeds)
    labels = [row["label"] for key, row in found.items() if key not in deeds]
    assert len(labels) == NUM_GOOD
    assert None not in labels
    careful = plan_of(store, tmp_path / "careful", decode_timeout_s=5.0)
    mark_all(careful)
    run(careful)
    assert parts(tmp_path / "careful") == parts(tmp_path / "out")


@pytest.mark.slow
def test_a_file_that_takes_8_gb_fails_alone_among_300_good_ones(
    tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    if psutil.virtual_memory().available < ENOUGH_MEMORY:
        pytest.skip("needs 12 GB of free memory")
    store = tmp_path / "store"
    draw_folder(store, count=NUM_GOOD)
    put_among(store, {"z.png": hostile_png(png, b"8gb")})
    monkeypatch.setenv("PYTHONPATH", hooked_path())
    run(plan_of(store, tmp_path / "out"))
    found = rows(tmp_path / "out")
    assert (found["z.png"]["status"], found["z.png"]["error"]) == CULPRIT
    assert sum(row["status"] == "ok" for row in found.values()) == NUM_GOOD
