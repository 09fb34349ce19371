"""Readers of the field that poll `predictions/` while parts come in: no error, no row twice."""

import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow.parquet as pq
import pytest

import cifar_ray
from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.pipeline import RunProgress, label
from cifar_ray.prediction.plan import Request, make_plan
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import FolderStore
from tests.drawing import draw_folder
from tests.unit.prediction.finished_run import FinishedRun, finish_run

NUM_IMAGES = 90
TIMEOUT_S = 120

ReadKeys = Callable[[Path], list[str]]


def with_duckdb(out: Path) -> list[str]:
    # A connection of its own: the default one is shared by threads.
    with duckdb.connect() as connection:
        query = f"SELECT key FROM '{out}/predictions/*.parquet'"
        return [key for (key,) in connection.sql(query).fetchall()]


READERS: dict[str, ReadKeys] = {
    "cifar_ray.read": lambda out: cifar_ray.read(out).to_table(columns=["key"])["key"].to_pylist(),
    "pyarrow": lambda out: pq.read_table(out / "predictions", columns=["key"])["key"].to_pylist(),
    "pandas": lambda out: list(pandas.read_parquet(out / "predictions", columns=["key"])["key"]),
    "polars": lambda out: polars.read_parquet(f"{out}/predictions/*.parquet")["key"].to_list(),
    "duckdb": with_duckdb,
}


class Poller(threading.Thread):
    """Reads again and again, and keeps how many rows it saw each time."""

    def __init__(self, out: Path, read: ReadKeys) -> None:
        super().__init__(daemon=True)
        self.out, self.read = out, read
        self.seen: list[int] = []
        self.fault: str | None = None
        self.looked = threading.Condition()
        self.stopped = False

    def run(self) -> None:
        while not self.stopped and self.fault is None:
            self.look()
        with self.looked:
            self.looked.notify_all()

    def look(self) -> None:
        try:
            keys = self.read(self.out)
        except Exception as error:  # noqa: BLE001 -- whatever a reader raises is what is tested
            self.fault = f"{type(error).__name__}: {error}"
            return
        if len(keys) != len(set(keys)):
            self.fault = f"{len(keys)} rows of {len(set(keys))} keys"
        if self.seen and len(keys) < self.seen[-1]:
            self.fault = f"{self.seen[-1]} rows, then {len(keys)}"
        with self.looked:
            self.seen.append(len(keys))
            self.looked.notify_all()

    def wait_for_looks(self, number: int) -> None:
        """Return when so many more looks have ended, or one failed."""
        with self.looked:
            wanted = len(self.seen) + number
            ended = lambda: len(self.seen) >= wanted or self.fault is not None  # noqa: E731
            assert self.looked.wait_for(ended, TIMEOUT_S)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("finished")
    draw_folder(folder / "images", NUM_IMAGES)
    return finish_run(folder / "images", folder / "out")


def part_files(run: FinishedRun) -> list[tuple[str, bytes]]:
    names = run.store.names(LabellingRun.PREDICTIONS)
    paths = [f"{LabellingRun.PREDICTIONS}/{name}" for name in names]
    return [(path, run.store.read(path)) for path in paths]


def run_with_one_part(finished: FinishedRun, out: Path) -> FolderStore:
    store = FolderStore(out)
    store.write(LabellingRun.RECORD, finished.store.read(LabellingRun.RECORD))
    store.write(*part_files(finished)[0])
    return store


@pytest.mark.parametrize("name", READERS)
def test_a_polling_reader_never_fails_and_sees_no_row_twice(
    finished: FinishedRun, tmp_path: Path, name: str
) -> None:
    store = run_with_one_part(finished, tmp_path)
    poller = Poller(tmp_path, READERS[name])
    poller.start()
    for path, data in part_files(finished)[1:]:
        store.write(path, data)
        poller.wait_for_looks(1)
    assert_saw_the_run_grow(poller)


def assert_saw_the_run_grow(poller: Poller) -> None:
    """End a poller of a run that is whole by now."""
    poller.wait_for_looks(2)
    poller.stopped = True
    poller.join(TIMEOUT_S)
    assert poller.fault is None
    assert poller.seen[-1] == NUM_IMAGES
    assert len(set(poller.seen)) > 3


def test_readers_never_fail_beside_a_run_of_real_workers(tmp_path: Path) -> None:
    draw_folder(tmp_path / "images", NUM_IMAGES)
    config = LabellingConfig(images_per_shard=2)
    out = tmp_path / "out"
    request = Request(str(tmp_path / "images"), str(out), None, None, config, ExecutionRequest())
    plan = make_plan(request)
    pollers = [Poller(out, READERS[name]) for name in ("pandas", "duckdb")]

    def look(progress: RunProgress) -> None:
        """Have each look at what is there; a folder without a part is none to them."""
        for poller in pollers if progress.shards_done else ():
            if poller.ident is None:
                poller.start()
            poller.wait_for_looks(1)

    label(plan, LocalEngine(plan.store.uri, plan.source.reference, 2, 1.0), 1.0, look)
    for poller in pollers:
        assert_saw_the_run_grow(poller)


@pytest.mark.parametrize("name", READERS)
def test_a_part_written_under_its_own_name_would_be_noticed(
    finished: FinishedRun, tmp_path: Path, name: str
) -> None:
    run_with_one_part(finished, tmp_path)
    path, data = part_files(finished)[1]
    poller = Poller(tmp_path, READERS[name])
    poller.start()
    (tmp_path / path).write_bytes(data[: len(data) // 2])
    poller.wait_for_looks(2)
    assert poller.fault is not None


@pytest.mark.parametrize("name", READERS)
def test_a_row_in_two_parts_would_be_noticed(
    finished: FinishedRun, tmp_path: Path, name: str
) -> None:
    run_with_one_part(finished, tmp_path)
    path, data = part_files(finished)[0]
    (tmp_path / path.replace("0000000.parquet", "0000001.parquet")).write_bytes(data)
    poller = Poller(tmp_path, READERS[name])
    poller.look()
    assert poller.fault == "16 rows of 8 keys"
