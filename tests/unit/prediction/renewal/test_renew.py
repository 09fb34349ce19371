"""Sealed runs taken up again: failed images retried, and news of the source labelled."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import InputError, StoreUnavailable
from cifar_ray.prediction.engine import RunEvent
from cifar_ray.prediction.events import ShardDone
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.pipeline import label
from cifar_ray.prediction.plan import Request, make_plan
from cifar_ray.prediction.receipt import Receipt
from cifar_ray.prediction.renewal.history import last_reopening
from cifar_ray.prediction.renewal.renew import renew
from cifar_ray.prediction.verification.repair import repair
from cifar_ray.prediction.verification.verify import Verified, verify
from cifar_ray.storage import FolderStore
from tests.drawing import draw_folder

CONFIG = LabellingConfig(images_per_shard=8)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` and `out`, a sealed run over them."""
    base = tmp_path_factory.mktemp("first")
    draw_folder(base / "images", count=30)
    (base / "images" / "locked.jpg").write_bytes(b"")
    (base / "images" / "notes.txt").write_text("notes")
    go(base)
    return base


@pytest.fixture
def base(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "base"))


class Interrupting:
    """An engine that ends with Ctrl-C after so many shards."""

    def __init__(self, engine: LocalEngine, after: int) -> None:
        self.engine, self.left = engine, after

    def run(self, shards: object) -> Iterator[RunEvent]:
        for event in self.engine.run(shards):  # type: ignore[arg-type]
            yield event
            self.left -= isinstance(event, ShardDone)
            if self.left == 0:
                raise KeyboardInterrupt


def go(
    base: Path,
    again: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    config: LabellingConfig = CONFIG,
    interrupt_after: int | None = None,
) -> Receipt:
    images, out = base / "images", base / "out"
    request = Request(
        str(images), str(out), None, None, config, ExecutionRequest(), source_moved=True
    )
    plan = make_plan(request)
    engine = LocalEngine(str(out), plan.source.reference, 1, 1.0)
    chosen = engine if interrupt_after is None else Interrupting(engine, interrupt_after)

    def run() -> Receipt:
        return label(plan, chosen, 1.0, lambda progress: None)  # type: ignore[arg-type]

    return run() if again is None else renew(plan, again, run, say)  # type: ignore[arg-type]


def rows(base: Path) -> dict[str, dict]:
    table = pq.read_table(base / "out" / "predictions")
    by_key = {row["key"]: row for row in table.to_pylist()}
    assert len(by_key) == table.num_rows
    return by_key


def look(base: Path) -> Verified:
    return verify(FolderStore(base / "out"), lambda rows: None)


def assert_whole(base: Path) -> None:
    assert look(base).differences == ()


def pictures(base: Path) -> list[Path]:
    files = (path for path in (base / "images").rglob("*") if path.is_file())
    return sorted(path for path in files if path.stat().st_size and path.suffix != ".txt")


def test_retrying_reads_failed_images_again_and_keeps_all_other_rows(
    first: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(first, tmp_path / "base"))
    victim = pictures(base)[3]
    data = victim.read_bytes()
    away = tmp_path / "away"
    # Labelled while one file was gone after the listing had it.
    shutil.rmtree(base / "out")
    plan_images = base / "images"
    request = Request(str(plan_images), str(base / "out"), None, None, CONFIG, ExecutionRequest())
    plan = make_plan(request)
    engine = LocalEngine(str(base / "out"), plan.source.reference, 1, 1.0)

    class Hiding:
        def run(self, shards: object) -> Iterator[RunEvent]:
            listed = list(shards)  # type: ignore[call-overload]
            victim.rename(away)
            yield from engine.run(iter(listed))

    label(plan, Hiding(), 1.0, lambda progress: None)  # type: ignore[arg-type]
    before = rows(base)
    key = str(victim.relative_to(plan_images))
    assert before[key]["status"] == "not_found"
    away.rename(victim)
    assert victim.read_bytes() == data
    said: list[str] = []
    receipt = go(base, "retry-failed", said.append)
    after = rows(base)
    assert after[key]["status"] == "ok"
    assert after[key]["label"] == rows(first)[key]["label"]
    assert {k: row for k, row in after.items() if k != key} == {
        k: row for k, row in before.items() if k != key
    }
    assert receipt.failed == {"empty": 1}
    assert said == ["2 failed images are read again."]
    assert_whole(base)


def test_retrying_a_run_without_failures_does_nothing(base: Path) -> None:
    (base / "images" / "locked.jpg").unlink()
    go(base, "update")
    sealed = (base / "out" / "receipt.json").read_bytes()
    said: list[str] = []
    go(base, "retry-failed", said.append)
    assert said == ["No image has failed; nothing to do."]
    assert (base / "out" / "receipt.json").read_bytes() == sealed


def change(base: Path) -> tuple[str, str, list[str]]:
    """Change one image, remove one, and add eleven; return their keys."""
    images = base / "images"
    changed, removed = pictures(base)[2], pictures(base)[12]
    changed.write_bytes(pictures(base)[20].read_bytes())
    removed.unlink()
    (images / "more.txt").write_text("more")
    (images / "notes.txt").unlink(missing_ok=True)
    added = []
    for number, path in enumerate(pictures(base)[:11]):
        copy = images / ("a-first" if number % 2 else "z-last") / f"{number}{path.suffix}"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
        added.append(str(copy.relative_to(images)))
    return str(changed.relative_to(images)), str(removed.relative_to(images)), added


def test_an_update_labels_what_is_new_or_changed_and_drops_what_is_gone(base: Path) -> None:
    before = rows(base)
    changed, removed, added = change(base)
    said: list[str] = []
    receipt = go(base, "update", said.append)
    assert said == ["11 new images, 1 changed, 1 removed."]
    after = rows(base)
    assert set(after) == set(before) - {removed} | set(added)
    assert after[changed]["version"] != before[changed]["version"]
    same = set(before) - {removed, changed}
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert (receipt.found, receipt.listed, receipt.skipped) == (42, 41, {".txt": 1})
    assert_whole(base)


def test_an_updated_run_holds_what_a_new_run_over_the_same_images_holds(
    base: Path, tmp_path: Path
) -> None:
    change(base)
    go(base, "update")
    fresh = tmp_path / "fresh"
    shutil.copytree(base / "images", fresh / "images")
    go(fresh)

    def content(row: dict) -> dict:
        return {name: value for name, value in row.items() if name not in ("shard", "uri")}

    assert {key: content(row) for key, row in rows(base).items()} == {
        key: content(row) for key, row in rows(fresh).items()
    }


def test_an_update_of_an_updated_run_finds_no_key_twice(base: Path) -> None:
    change(base)
    go(base, "update")
    _, _, added = change(base)
    (base / "images" / added[0]).unlink()
    go(base, "update")
    assert set(rows(base)) == {
        str(path.relative_to(base / "images"))
        for path in (base / "images").rglob("*")
        if path.is_file() and path.suffix != ".txt"
    }
    assert_whole(base)
    said: list[str] = []
    go(base, "update", said.append)
    assert said == ["0 new images, 0 changed, 0 removed."]


def test_a_shard_whose_images_are_all_gone_leaves_an_empty_part(base: Path) -> None:
    first_shard = [row["key"] for row in rows(base).values() if row["shard"] == "0000-0000001"]
    for key in first_shard:
        (base / "images" / key).unlink()
    receipt = go(base, "update")
    assert receipt.listed == 31 - len(first_shard)
    assert_whole(base)


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_update_goes_on_with_the_same_command_or_without_the_option(
    base: Path, tmp_path: Path, after: int
) -> None:
    change(base)
    whole = Path(shutil.copytree(base, tmp_path / "whole"))
    go(whole, "update")
    with pytest.raises(KeyboardInterrupt):
        go(base, "update", interrupt_after=after)
    assert not (base / "out" / "receipt.json").exists()
    go(base, "update" if after == 1 else None)
    uri = {"uri"}
    assert {k: {n: v for n, v in r.items() if n not in uri} for k, r in rows(base).items()} == {
        k: {n: v for n, v in r.items() if n not in uri} for k, r in rows(whole).items()
    }
    assert_whole(base)
    reopening = last_reopening(FolderStore(base / "out"))
    assert reopening is not None
    assert reopening.number == 1


def test_a_partial_run_cannot_be_updated(base: Path) -> None:
    shutil.rmtree(base / "out")
    config = CONFIG.model_copy(update={"limit": 5})
    go(base, config=config)
    with pytest.raises(InputError, match="--limit"):
        go(base, "update", config=config)


def test_an_update_over_an_unplugged_disk_drops_nothing(base: Path, tmp_path: Path) -> None:
    before = rows(base)
    images = base / "images"
    images.rename(tmp_path / "away")
    images.mkdir()
    with pytest.raises(StoreUnavailable, match="gone or empty"):
        go(base, "update")
    (images / "read-me.txt").write_text("Mount the disk here.")
    with pytest.raises(StoreUnavailable, match="no image any more"):
        go(base, "update")
    shutil.copytree(tmp_path / "away", images, dirs_exist_ok=True)
    shutil.rmtree(images / "b" / "c")
    (images / "b" / "c").mkdir()  # A disk of its own.
    with pytest.raises(StoreUnavailable, match="b/c is empty"):
        go(base, "update")
    assert rows(base) == before
    (images / "b" / "c").rmdir()
    (images / "b").rmdir()
    go(base, "update")
    assert set(rows(base)) == {key for key in before if not key.startswith("b/")}
    assert_whole(base)


@pytest.mark.parametrize("number", [1, 5])
def test_an_updated_run_has_all_its_images_after_a_repair_of_its_listing(
    base: Path, number: int
) -> None:
    change(base)
    go(base, "update")
    before = rows(base)
    chunk = base / "out" / "_manifest" / f"shard-0000-{number:07d}.parquet"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    repair(FolderStore(base / "out"), look(base))
    go(base)
    after = rows(base)
    assert set(after) == set(before)
    assert {key: row["label"] for key, row in after.items()} == {
        key: row["label"] for key, row in before.items()
    }
    assert_whole(base)


def test_an_update_that_is_given_again_over_still_newer_images_keeps_the_order_of_keys(
    base: Path,
) -> None:
    change(base)
    with pytest.raises(KeyboardInterrupt):
        go(base, "update", interrupt_after=1)
    for number, path in enumerate(pictures(base)[:5]):
        newer = base / "images" / "a-before-all" / f"{number}{path.suffix}"
        newer.parent.mkdir(exist_ok=True)
        shutil.copy(path, newer)
    go(base, "update")
    assert_whole(base)
    said: list[str] = []
    go(base, "update", said.append)
    assert said == ["0 new images, 0 changed, 0 removed."]
