"""What Python gets of a run: a dataset that reads when asked, and an import that loads nothing."""

import json
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import cifar_ray
from cifar_ray.errors import InputError
from cifar_ray.prediction.plan import read_record
from cifar_ray.prediction.reading import read_rows, run_record
from tests.drawing import draw_folder
from tests.unit.prediction.finished_run import finish_run


def test_read_gives_a_dataset_with_every_row_of_a_run(tmp_path: Path) -> None:
    draw_folder(tmp_path / "images", count=20)
    run = finish_run(tmp_path / "images", tmp_path / "out")
    rows = cifar_ray.read(tmp_path / "out")
    assert isinstance(rows, ds.Dataset)
    assert rows.count_rows() == run.receipt.listed == 20
    assert rows.to_table().equals(pq.read_table(tmp_path / "out" / "predictions"))
    assert cifar_ray.read(str(tmp_path / "out")).count_rows() == 20


def test_a_run_without_a_part_has_the_columns_and_no_rows(tmp_path: Path) -> None:
    draw_folder(tmp_path / "images", count=3)
    finish_run(tmp_path / "images", tmp_path / "out")
    for part in (tmp_path / "out" / "predictions").iterdir():
        part.unlink()
    table = cifar_ray.read(tmp_path / "out").to_table()
    assert table.num_rows == 0
    assert "label" in table.column_names


def test_reading_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no labelling run"):
        cifar_ray.read(tmp_path)


def test_a_run_of_another_format_is_told_as_such(tmp_path: Path) -> None:
    draw_folder(tmp_path / "images", count=3)
    run = finish_run(tmp_path / "images", tmp_path / "out")
    record = json.loads(run.store.read("run.json"))
    run.store.write("run.json", json.dumps({**record, "format_version": 1}).encode())
    with pytest.raises(InputError, match="not written by this version"):
        run_record(run.store)
    with pytest.raises(InputError, match=r"not written by this version .*start over with --fresh"):
        read_record(run.store)


def test_rows_come_batch_by_batch_in_the_order_of_keys(tmp_path: Path) -> None:
    draw_folder(tmp_path / "images", count=20)
    run = finish_run(tmp_path / "images", tmp_path / "out")
    batches = list(read_rows(run.store, ["key"]))
    assert [len(batch) for batch in batches] == [8, 8, 4]
    keys = [key for batch in batches for key in batch["key"].to_pylist()]
    assert keys == sorted(keys, key=str.encode)
