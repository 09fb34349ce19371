"""Whole runs from a bucket into a bucket, undisturbed and disturbed."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cifar_ray
from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import InputError
from cifar_ray.prediction.classify import Classifying
from cifar_ray.prediction.engine import RunEvent
from cifar_ray.prediction.export.spreadsheet import export_csv
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.pipeline import RunProgress, label
from cifar_ray.prediction.plan import Plan, Request, make_plan
from cifar_ray.prediction.receipt import Receipt
from cifar_ray.prediction.renewal.renew import renew
from cifar_ray.prediction.shards import RunShards
from cifar_ray.prediction.sources import s3_ranges
from cifar_ray.prediction.status import run_status
from cifar_ray.prediction.verification.repair import repair
from cifar_ray.prediction.verification.verify import Verified, verify
from cifar_ray.prediction.worker import equip
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import Store, open_store
from tests.drawing import draw_folder
from tests.store.conftest import BUCKET
from tests.store.proxy import FaultProxy, Rule

NUM_IMAGES = 48
IMAGES_PER_SHARD = 8
SAME_COLUMNS = ["key", "sha256", "status", "width", "height", "label", "confidence"]
HELD = "^GET .*drawn-0044"
"""An image of the fifth of the six shards, in the order of keys."""
LISTED = LabellingRun.range_end(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "images"
    draw_folder(folder, NUM_IMAGES)
    return folder


@pytest.fixture
def images(folder: Path, place: str, prefix: str, client: Any) -> str:
    """The folder's files as objects."""
    for path in folder.rglob("*.*"):
        key = f"{prefix}images/{path.relative_to(folder).as_posix()}"
        client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
    return f"{place}/images"


def start(source: str, out: str, *options: str) -> "subprocess.Popen[str]":
    """Start `cifar-ray predict`."""
    options = ("--images-per-shard", str(IMAGES_PER_SHARD), *options)
    command = ("predict", source, "--out", out, "--local", "--workers", "1", "--json", *options)
    return subprocess.Popen(
        [sys.executable, "-m", "cifar_ray", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, dict[str, Any], str]:
    """Return exit code, receipt and messages."""
    out, errors = process.communicate(timeout=900)
    return process.returncode, json.loads(out) if out.strip() else {}, " ".join(errors.split())


def parts(store: Store) -> dict[str, bytes]:
    return {name: store.read(f"predictions/{name}") for name in store.names("predictions")}


def rows(store: Store) -> pa.Table:
    tables = [
        pq.read_table(store.open(f"predictions/{name}")) for name in store.names("predictions")
    ]
    return pa.concat_tables(tables)


def plan_of(source: str, out: str, **config: Any) -> Plan:
    settings = LabellingConfig(images_per_shard=IMAGES_PER_SHARD, **config)
    return make_plan(Request(source, out, None, None, settings, ExecutionRequest()))


class InThisProcess:
    """An engine of one worker in this process, which starts none for each of many runs."""

    def run(self, shards: RunShards) -> Iterator[RunEvent]:
        todo = iter([shard.name for shard in shards if not shard.done])
        equipment = equip(open_store(shards.destination), shards.source)
        yield from Classifying(equipment, lambda wait: next(todo, None)).run()  # type: ignore[misc]


def run_here(plan: Plan) -> Receipt:
    return label(plan, InThisProcess(), 1.0, lambda progress: None)


def engaged(plan: Plan) -> tuple[Plan, LocalEngine]:
    return plan, LocalEngine(plan.store.uri, plan.source.reference, 1, 60.0)


def run(plan: Plan) -> Receipt:
    return label(*engaged(plan), 1.0, lambda progress: None)


def wait_until(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_a_run_that_is_killed_in_the_middle_has_the_rows_of_the_folder(
    images: str, folder: Path, place: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    run(plan_of(str(folder), str(tmp_path / "out")))
    expected = rows(open_store(str(tmp_path / "out")))
    undisturbed = open_store(f"{place}/undisturbed")
    receipt = run(plan_of(images, undisturbed.uri))
    assert (receipt.listed, receipt.ok, receipt.parts) == (NUM_IMAGES, NUM_IMAGES, 6)
    found = rows(undisturbed)
    assert found.select(SAME_COLUMNS) == expected.select(SAME_COLUMNS)
    assert found["uri"][0].as_py() == f"{images}/{found['key'][0].as_py()}"
    assert set(undisturbed.names("")) >= {"receipt.json", "report.html", "failures.parquet"}

    store = open_store(f"{place}/killed")
    hold = proxy.add(Rule(HELD, "hold"))
    process = start(images, store.uri)
    wait_until(lambda: hold.seen and store.names("predictions"), process)
    process.kill()
    process.communicate()
    before = parts(store)
    proxy.released.set()
    code, again, errors = finish(start(images, store.uri))
    assert (code, errors) == (0, "") or code == 0, errors
    assert again["ok"] == NUM_IMAGES
    assert 0 < len(before) < 6
    assert parts(store) == parts(undisturbed)
    assert store.names("_tmp") == []


def refuse(proxy: FaultProxy) -> Callable[[], None]:
    """Let the token expire; return what gives a new one."""
    rule = proxy.add(Rule("", 400, code="ExpiredToken"))
    return lambda: proxy.rules.remove(rule)


def stop(proxy: FaultProxy) -> Callable[[], None]:
    """Stop the endpoint; return what starts it again."""
    proxy.stop()
    return proxy.start


@pytest.mark.parametrize("fault", [stop, refuse], ids=["endpoint stopped", "token expired"])
def test_a_store_that_fails_for_good_ends_the_run_with_4_and_it_can_go_on(
    images: str, place: str, proxy: FaultProxy, fault: Callable[[FaultProxy], Callable[[], None]]
) -> None:
    store = open_store(f"{place}/out")
    hold = proxy.add(Rule(HELD, "hold"))
    process = start(images, store.uri, "--store-timeout", "1")
    wait_until(lambda: hold.seen and store.names("predictions"), process)
    mend = fault(proxy)
    proxy.released.set()
    code, _, errors = finish(process)
    assert code == 4, errors
    assert "same command" in errors
    mend()
    assert not store.exists("receipt.json")
    # What is there blames no image for it.
    assert set(rows(store)["status"].to_pylist()) == {"ok"}
    code, receipt, errors = finish(start(images, store.uri))
    assert code == 0, errors
    assert (receipt["listed"], receipt["ok"]) == (NUM_IMAGES, NUM_IMAGES)


@pytest.mark.parametrize(
    "fault",
    [pytest.param(stop, marks=pytest.mark.slow), refuse],
    ids=["endpoint stopped", "token expired"],
)
def test_a_source_that_fails_for_a_while_costs_no_image_and_no_second_command(
    images: str,
    proxy: FaultProxy,
    tmp_path: Path,
    fault: Callable[[FaultProxy], Callable[[], None]],
) -> None:
    run(plan_of(images, str(tmp_path / "undisturbed")))
    store = open_store(str(tmp_path / "out"))
    hold = proxy.add(Rule(HELD, "hold"))
    mend: list[Callable[[], None]] = []
    mended: list[bool] = []

    def take_away() -> None:
        while not (hold.seen and store.names("predictions") and store.exists(LISTED)):
            time.sleep(0.05)
        mend.append(fault(proxy))
        proxy.released.set()

    def bring_back(progress: RunProgress) -> None:
        if progress.pause is not None and not mended:
            mend[0]()
            mended.append(True)

    away = threading.Thread(target=take_away, daemon=True)
    away.start()
    receipt = label(*engaged(plan_of(images, store.uri)), 1.0, bring_back)
    away.join()
    assert mended
    assert (receipt.listed, receipt.ok) == (NUM_IMAGES, NUM_IMAGES)
    assert parts(store) == parts(open_store(str(tmp_path / "undisturbed")))


def test_broken_images_get_their_status_and_no_other_image_does(
    images: str, place: str, prefix: str, proxy: FaultProxy, client: Any
) -> None:
    for key, data in (("a/empty.jpg", b""), ("b/text.jpg", b"no picture")):
        client.put_object(Bucket=BUCKET, Key=f"{prefix}images/{key}", Body=data)
    plan = plan_of(images, f"{place}/out")
    proxy.add(Rule("^GET .*images/.*drawn-0003", 403))
    proxy.add(Rule("^GET .*images/.*drawn-0010", 404))
    proxy.add(Rule("^GET .*images/.*drawn-0020", 403, code="InvalidObjectState"))
    # One in three other requests fails in some way, and then passes.
    for number, action in enumerate((503, "reset", "cut") * 4):
        proxy.add(Rule(f"drawn-00{25 + number}", action, times=1))  # type: ignore[arg-type]
    receipt = run(plan)
    assert receipt.failed == {
        "archived": 1,
        "denied": 1,
        "empty": 1,
        "not_an_image": 1,
        "not_found": 1,
    }
    status = dict(zip(*(rows(plan.store)[c].to_pylist() for c in ("key", "status")), strict=True))
    assert next(s for key, s in status.items() if "drawn-0003" in key) == "denied"
    assert next(s for key, s in status.items() if "drawn-0010" in key) == "not_found"


def test_ranges_that_are_listed_side_by_side_lose_and_double_nothing(
    images: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = partial(s3_ranges.find_ranges, pages=1, page_size=5, keys_a_range=1)
    monkeypatch.setattr(s3_ranges, "find_ranges", small)
    plan = plan_of(images, f"{place}/out")
    assert plan.record.source.ranges == ("", "b/")
    receipt = run(plan)
    assert (receipt.found, receipt.listed) == (NUM_IMAGES, NUM_IMAGES)
    keys = rows(plan.store)["key"].to_pylist()
    assert keys == sorted(set(keys))
    assert len(keys) == NUM_IMAGES


def test_what_is_wrong_is_said_before_anything_is_done(
    images: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no such bucket"):
        plan_of(images, "s3://no-such-bucket/out")
    with pytest.raises(InputError, match="lies inside SOURCE"):
        plan_of(images, f"{images}/out")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    code, _, errors = finish(start(images, f"{place}/out"))
    assert code == 2
    assert "no credentials that it takes (SignatureDoesNotMatch)" in errors
    assert "wrong-secret" not in errors
    assert os.environ["AWS_ACCESS_KEY_ID"] not in errors


def test_no_file_of_a_run_holds_the_credentials(images: str, place: str, tmp_path: Path) -> None:
    plan = plan_of(images, str(tmp_path / "out"), limit=4)
    run(plan)
    secrets = [os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    for path in (tmp_path / "out").rglob("*.*"):
        assert not any(secret.encode() in path.read_bytes() for secret in secrets), path
    shutil.rmtree(tmp_path / "out")


@pytest.mark.timeout(900)
def test_a_run_in_a_bucket_is_read_verified_repaired_retried_updated_and_handed_over(
    images: str, place: str, prefix: str, client: Any, tmp_path: Path
) -> None:
    broken = f"{prefix}images/zz-broken.jpg"
    client.put_object(Bucket=BUCKET, Key=broken, Body=b"no picture")
    store = open_store(f"{place}/out")
    assert run_here(plan_of(images, store.uri)).failed == {"not_an_image": 1}
    whole, keys = parts(store), rows(store)["key"].to_pylist()
    assert look(store).differences == ()
    assert cifar_ray.read(store.uri).to_table().equals(rows(store))
    found = run_status(store)
    assert (found.sealed, found.images_done) == (True, NUM_IMAGES + 1)
    assert export_csv(store, tmp_path / "rows.csv", lambda rows: None) == NUM_IMAGES + 1

    name = sorted(whole)[2]
    damaged = bytearray(whole[name])
    damaged[len(damaged) // 3] ^= 1
    store.write(f"predictions/{name}", bytes(damaged))
    verified = look(store)
    assert "0000-0000002" in {found.where for found in verified.differences}
    repair(store, verified)
    assert not run_status(store).sealed
    run_here(plan_of(images, store.uri))
    assert parts(store) == whole
    assert look(store).differences == ()

    client.put_object(Bucket=BUCKET, Key=broken, Body=b"another")
    plan = plan_of(images, store.uri)
    said: list[str] = []
    assert renew(plan, "retry-failed", lambda: run_here(plan), said.append).failed == {"changed": 1}
    client.put_object(Bucket=BUCKET, Key=f"{prefix}images/a/new.jpg", Body=b"no picture")
    client.delete_object(Bucket=BUCKET, Key=f"{prefix}images/{keys[0]}")
    assert renew(plan, "update", lambda: run_here(plan), said.append).failed == {"not_an_image": 2}
    assert said == [
        "1 failed images are read again.",
        "1 new images, 1 changed, 1 removed.",
    ]
    assert sorted(rows(store)["key"].to_pylist()) == sorted([*keys[1:], "a/new.jpg"])
    assert look(store).differences == ()


def look(store: Store) -> Verified:
    return verify(store, lambda rows: None)
