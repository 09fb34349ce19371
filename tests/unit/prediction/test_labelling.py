"""The whole of a labelling run on the local engine: real files, real worker processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pandas
import polars
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import InputError, StoreUnavailable, TooManyFailures
from cifar_ray.prediction.events import ShardDone
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.pipeline import RunProgress, label, sealed_receipt
from cifar_ray.prediction.plan import Plan, Request, make_plan
from cifar_ray.prediction.receipt import Receipt
from tests.drawing import draw_folder

BROKEN = {
    "b/empty.jpg": ("empty", b""),
    "b/text.jpg": ("not_an_image", b"this is no picture, whatever its name says"),
    "c/noise": ("not_an_image", bytes(range(256)) * 3),
    "a/cut.jpg": ("truncated", None),
    "a/photo.heic": ("unsupported", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64),
}
CONFIG = LabellingConfig(images_per_shard=16)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """100 drawn images in sub-folders, five broken ones among them, and three other files."""
    root = tmp_path / "store"
    images = draw_folder(root, count=100)
    for name, (_, data) in BROKEN.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        jpeg = next(image for image in images if image.suffix == ".jpg").read_bytes()
        path.write_bytes(jpeg[: len(jpeg) // 2] if data is None else data)
    (root / "notes.txt").write_text("notes")
    (root / ".hidden.jpg").write_bytes(b"x")
    (root / "films" / "a.mp4").parent.mkdir()
    (root / "films" / "a.mp4").write_bytes(b"x")
    return root


def plan_of(store: Path, out: Path, config: LabellingConfig = CONFIG, **settings: object) -> Plan:
    request = Request(str(store), str(out), None, None, config, ExecutionRequest(), **settings)
    return make_plan(request)


def run(
    store: Path, out: Path, workers: int = 1, config: LabellingConfig = CONFIG, rate: float = 1.0
) -> Receipt:
    plan = plan_of(store, out, config)
    engine = LocalEngine(plan.store.uri, plan.source.reference, workers, store_timeout_s=1.0)
    return label(plan, engine, rate, lambda progress: None)


def rows(out: Path) -> dict[str, dict]:
    table = pq.read_table(out / "predictions")
    by_key = {row["key"]: row for row in table.to_pylist()}
    assert len(by_key) == table.num_rows
    return by_key


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "predictions").iterdir())}


def test_every_file_has_one_row_and_every_broken_one_its_status(
    store: Path, tmp_path: Path
) -> None:
    receipt = run(store, tmp_path / "out")
    by_key = rows(tmp_path / "out")
    files = [path for path in store.rglob("*") if path.is_file()]
    assert receipt.found == len(files) == 108
    assert receipt.skipped == {"(hidden)": 1, ".mp4": 1, ".txt": 1}
    assert receipt.listed == len(by_key) == 105
    assert {key: by_key[key]["status"] for key in BROKEN} == {k: v[0] for k, v in BROKEN.items()}
    good = [row for key, row in by_key.items() if key not in BROKEN]
    assert receipt.ok == len(good) == 100
    assert all(row["status"] == "ok" and row["label"] and row["error"] is None for row in good)
    failures = pq.read_table(tmp_path / "out" / "failures.parquet").to_pylist()
    assert {row["key"] for row in failures} == set(BROKEN)
    assert list(by_key) == sorted(by_key, key=str.encode)


def test_any_number_of_workers_writes_the_same_bytes(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "one", workers=1)
    run(store, tmp_path / "two", workers=2)
    assert parts(tmp_path / "one") == parts(tmp_path / "two")


def test_swapping_two_files_changes_their_two_rows_and_no_other(
    store: Path, tmp_path: Path
) -> None:
    run(store, tmp_path / "before")
    before = rows(tmp_path / "before")
    labelled = [row for row in before.values() if row["status"] == "ok"]
    one = labelled[0]
    other = next(row for row in labelled if row["label"] != one["label"])
    paths = [store / row["key"] for row in (one, other)]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content)
    run(store, tmp_path / "after")
    after = rows(tmp_path / "after")
    decided = ("sha256", "label", "confidence", "top_scores")
    changed = {
        key for key in before if any(before[key][name] != after[key][name] for name in decided)
    }
    assert changed == {one["key"], other["key"]}
    assert after[one["key"]]["label"] == other["label"]
    assert after[other["key"]]["label"] == one["label"]


def test_a_finished_run_is_complete_at_once(store: Path, tmp_path: Path) -> None:
    receipt = run(store, tmp_path / "out")
    before = parts(tmp_path / "out")
    assert sealed_receipt(plan_of(store, tmp_path / "out")) == receipt
    assert parts(tmp_path / "out") == before


class StoppingEngine:
    """The local engine, stopped from outside after so many parts."""

    def __init__(self, engine: LocalEngine, parts_left: int) -> None:
        self.engine, self.parts_left = engine, parts_left

    def run(self, shards: object) -> object:
        for event in self.engine.run(shards):  # type: ignore[arg-type]
            yield event
            if isinstance(event, ShardDone):
                self.parts_left -= 1
                if not self.parts_left:
                    raise KeyboardInterrupt


def test_an_interrupted_run_does_the_missing_shards_only(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "whole")
    out = tmp_path / "out"
    plan = plan_of(store, out)
    engine = StoppingEngine(
        LocalEngine(plan.store.uri, plan.source.reference, 1, 1.0), parts_left=3
    )
    with pytest.raises(KeyboardInterrupt):
        label(plan, engine, 1.0, lambda progress: None)  # type: ignore[arg-type]
    done = {name: (out / "predictions" / name).stat().st_mtime_ns for name in parts(out)}
    assert 3 <= len(done) < 7
    assert not (out / "receipt.json").exists()
    run(store, out)
    after = {name: (out / "predictions" / name).stat().st_mtime_ns for name in done}
    assert after == done
    assert parts(out) == parts(tmp_path / "whole")


def command(store: Path, out: Path, *options: str) -> list[str]:
    base = [sys.executable, "-m", "cifar_ray", "predict", str(store), "--out", str(out), "--local"]
    return [*base, "--images-per-shard", "16", "--max-failure-rate", "1", *options]


def wait_for_parts(out: Path, process: "subprocess.Popen[bytes]", number: int) -> None:
    while process.poll() is None:
        if len(list((out / "predictions").glob("*.parquet"))) >= number:
            return
        psutil.wait_procs([psutil.Process(process.pid)], timeout=0.01)


def test_a_killed_driver_loses_and_doubles_nothing(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "whole")
    out = tmp_path / "out"
    for number in (1, 3, 5):
        process = subprocess.Popen(command(store, out), stderr=subprocess.DEVNULL)
        wait_for_parts(out, process, number)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = subprocess.run(command(store, out), check=False, capture_output=True)
    assert finished.returncode == 0, finished.stderr.decode()
    assert parts(out) == parts(tmp_path / "whole")
    assert not list((out / "_tmp").iterdir())


def test_ctrl_c_on_a_running_command_loses_nothing_and_says_how_to_go_on(
    store: Path, tmp_path: Path
) -> None:
    small_shards = ("--images-per-shard", "4", "--workers", "1")
    run(store, tmp_path / "whole", config=LabellingConfig(images_per_shard=4))
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(store, out, *small_shards), stderr=subprocess.PIPE, start_new_session=True
    )
    wait_for_parts(out, process, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: its workers hear of it too
    told = process.communicate()[1].decode()
    assert process.returncode == 130, told
    assert "the same command goes on from there" in told
    assert 2 <= len(parts(out)) < 27
    assert not (out / "receipt.json").exists()
    finished = subprocess.run(command(store, out, *small_shards), capture_output=True)
    assert finished.returncode == 0, finished.stderr.decode()
    assert parts(out) == parts(tmp_path / "whole")


class KillingEngine:
    """The local engine, which loses a worker to SIGKILL after its first part."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine, self.killed = engine, 0

    def run(self, shards: object) -> object:
        for event in self.engine.run(shards):  # type: ignore[arg-type]
            yield event
            if isinstance(event, ShardDone) and not self.killed:
                self.killed = self.engine.workers[0].process.pid
                os.kill(self.killed, signal.SIGKILL)


def test_a_killed_worker_is_replaced_and_its_shards_done_again(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "whole")
    plan = plan_of(store, tmp_path / "out")
    engine = KillingEngine(LocalEngine(plan.store.uri, plan.source.reference, 2, 1.0))
    label(plan, engine, 1.0, lambda progress: None)  # type: ignore[arg-type]
    assert engine.killed
    assert parts(tmp_path / "out") == parts(tmp_path / "whole")


def test_a_part_that_was_damaged_before_sealing_is_done_again(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "out")
    whole = parts(tmp_path / "out")
    names = sorted(whole)
    folder = tmp_path / "out" / "predictions"
    (tmp_path / "out" / "receipt.json").unlink()
    (folder / names[0]).write_bytes(whole[names[1]])
    (folder / names[2]).write_bytes(whole[names[2]][:100])
    (folder / names[3]).unlink()
    run(store, tmp_path / "out")
    assert parts(tmp_path / "out") == whole


def test_a_reader_of_the_folder_never_fails_nor_sees_a_row_twice(
    store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    seen: list[int] = []

    def look(progress: RunProgress) -> None:
        if (out / "predictions").exists():
            keys = pq.read_table(out / "predictions", columns=["key"])["key"].to_pylist()
            assert len(keys) == len(set(keys))
            seen.append(len(keys))

    plan = plan_of(store, out)
    label(plan, LocalEngine(plan.store.uri, plan.source.reference, 2, 1.0), 1.0, look)
    assert seen == sorted(seen)
    assert seen[-1] == 105


def test_every_reader_of_the_field_gives_the_same_table(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "out", config=CONFIG.model_copy(update={"probabilities": True}))
    folder = tmp_path / "out" / "predictions"
    expected = pq.read_table(folder)
    of_polars = polars.read_parquet(f"{folder}/*.parquet").to_arrow().cast(expected.schema)
    assert of_polars.equals(expected)
    of_pandas = pandas.read_parquet(folder, dtype_backend="pyarrow")
    assert pa.Table.from_pandas(of_pandas, schema=expected.schema).equals(expected)
    query = f"SELECT * FROM '{folder}/*.parquet' ORDER BY shard, key"
    of_duckdb = duckdb.sql(query).to_arrow_table().cast(expected.schema)
    assert of_duckdb.to_pylist() == expected.to_pylist()


def test_a_source_that_goes_away_blames_no_image_and_the_run_goes_on_later(
    store: Path, tmp_path: Path
) -> None:
    run(store, tmp_path / "whole")
    out, away = tmp_path / "out", tmp_path / "away"
    plan = plan_of(store, out)

    class UnpluggingEngine:
        def __init__(self) -> None:
            self.engine = LocalEngine(plan.store.uri, plan.source.reference, 1, store_timeout_s=0.5)
            self.done = 0

        def run(self, shards: object) -> object:
            for event in self.engine.run(shards):  # type: ignore[arg-type]
                yield event
                self.done += isinstance(event, ShardDone)
                if self.done == 2 and store.exists():
                    store.rename(away)

    with pytest.raises((StoreUnavailable, InputError)):
        label(plan, UnpluggingEngine(), 1.0, lambda progress: None)  # type: ignore[arg-type]
    statuses = {row["status"] for row in rows(out).values()}
    assert statuses <= {"ok", *(status for status, _ in BROKEN.values())}
    away.rename(store)
    run(store, out)
    assert parts(out) == parts(tmp_path / "whole")


def test_files_that_change_or_vanish_after_the_listing_get_a_status_of_their_own(
    store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    plan = plan_of(store, out)

    class ChangingEngine:
        def run(self, shards: object) -> object:
            listed = list(shards)  # type: ignore[call-overload]
            (store / "drawn-0002.jpg").unlink()
            (store / "drawn-0005.jpg").write_bytes(b"other")
            engine = LocalEngine(plan.store.uri, plan.source.reference, 1, 1.0)
            yield from engine.run(iter(listed))

    label(plan, ChangingEngine(), 1.0, lambda progress: None)  # type: ignore[arg-type]
    by_key = rows(out)
    assert by_key["drawn-0002.jpg"]["status"] == "not_found"
    assert by_key["drawn-0005.jpg"]["status"] == "changed"


def test_too_many_failures_end_with_their_own_error_and_a_sealed_run(
    store: Path, tmp_path: Path
) -> None:
    with pytest.raises(TooManyFailures, match="5 of 105 images failed"):
        run(store, tmp_path / "out", rate=0.03)
    assert json.loads((tmp_path / "out" / "receipt.json").read_text())["ok"] == 100


def test_a_hopeless_run_stops_early_but_not_on_a_few_broken_files_at_the_start(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(2000):
        (broken / f"{number:04}.jpg").write_bytes(b"")
    with pytest.raises(
        TooManyFailures, match=r"unfinished: .* empty\. What is done is kept"
    ) as told:
        run(broken, tmp_path / "out", rate=0.05)
    assert "failures.parquet" not in str(told.value)
    assert not list((tmp_path / "out").glob("*.parquet"))
    assert not (tmp_path / "out" / "receipt.json").exists()
    mixed = tmp_path / "mixed"
    draw_folder(mixed, count=90)
    for number in range(4):
        (mixed / f"0{number}.jpg").write_bytes(b"")
    assert run(mixed, tmp_path / "fine", rate=0.05).ok == 90


def test_limit_labels_the_first_and_sample_a_seeded_part(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "all")
    everything = rows(tmp_path / "all")
    limited = run(store, tmp_path / "first", config=LabellingConfig(limit=10))
    assert list(rows(tmp_path / "first")) == list(everything)[:10]
    assert limited.partial == {"limit": 10}
    sampled = run(store, tmp_path / "some", config=LabellingConfig(sample=10, sample_seed=3))
    run(store, tmp_path / "same", config=LabellingConfig(sample=10, sample_seed=3))
    run(store, tmp_path / "other", config=LabellingConfig(sample=10, sample_seed=4))
    assert sampled.listed == 10
    assert rows(tmp_path / "some") == rows(tmp_path / "same")
    assert rows(tmp_path / "some").keys() != rows(tmp_path / "other").keys()
    decided = ("label", "status", "sha256")
    for key, row in rows(tmp_path / "some").items():
        assert [row[n] for n in decided] == [everything[key][n] for n in decided]


def test_another_run_is_refused_with_what_differs(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "out")
    with pytest.raises(InputError, match="--top-k: there 5, now 3"):
        plan_of(store, tmp_path / "out", CONFIG.model_copy(update={"top_k": 3}))
    moved = tmp_path / "moved"
    shutil.copytree(store, moved)
    with pytest.raises(InputError, match="SOURCE: there"):
        plan_of(moved, tmp_path / "out")
    assert plan_of(moved, tmp_path / "out", source_moved=True).resumed
    # What a killed update and a killed write leave.
    for left in ("_update/shard-0000-0000000.parquet", "_tmp/0123", "_marks/0000-0000001"):
        (tmp_path / "out" / left).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / left).write_bytes(b"left")
    fresh = plan_of(moved, tmp_path / "out", fresh=True)
    assert not fresh.resumed
    gone = ("predictions", "_manifest", "_update", "_tmp/0123", "_marks", "receipt.json")
    assert not [name for name in gone if (tmp_path / "out" / name).exists()]


@pytest.mark.parametrize("where", ["inside", "same"])
def test_results_inside_the_source_are_refused(store: Path, where: str) -> None:
    out = store if where == "same" else store / "labels"
    with pytest.raises(InputError, match="lies inside SOURCE"):
        plan_of(store, out)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["thesis.tex", "report.html", "predictions/mine.csv"])
def test_a_folder_of_other_things_is_not_taken_for_results(
    store: Path, tmp_path: Path, name: str, fresh: bool
) -> None:
    mine = tmp_path / "mine" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        plan_of(store, tmp_path / "mine", fresh=fresh)
    assert mine.read_text() == "x"


def test_a_place_where_a_run_was_stopped_before_it_began_is_taken(
    store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for name in ("forecast.json", "_lease/0000001.json", "_tmp/0123", "_bundle/bundle.json"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("{}")
    assert not plan_of(store, out, fresh=True).resumed
    assert (out / "forecast.json").exists()


def test_a_source_without_images_says_what_was_found(tmp_path: Path) -> None:
    root = tmp_path / "texts"
    root.mkdir()
    (root / "a.txt").write_text("x")
    with pytest.raises(InputError, match="no images \\(1 other files found\\)"):
        plan_of(root, tmp_path / "out")
    with pytest.raises(InputError, match="does not exist"):
        plan_of(tmp_path / "nowhere", tmp_path / "out")


def test_a_run_with_nothing_left_to_label_starts_no_worker(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = run(store, tmp_path / "out")
    (tmp_path / "out" / "receipt.json").unlink()
    monkeypatch.setattr(sys, "executable", "no such program")
    again = run(store, tmp_path / "out")
    assert again.parts_digest == receipt.parts_digest
