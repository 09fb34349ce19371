"""Reading the rows of a run, sealed or not: as a dataset, or batch by batch in constant memory."""

from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, LocalFileSystem
from pydantic import ValidationError

from cifar_ray.config.labelling import RunRecord
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.part import part_names
from cifar_ray.prediction.row import row_schema
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import S3_SCHEME, FolderStore, Store, open_store

BATCH_ROWS = 4096


def run_record(store: Store) -> RunRecord:
    """Return DEST's `run.json`; `InputError` if there is none, or one of another version."""
    try:
        return RunRecord.model_validate_json(store.read(LabellingRun.RECORD))
    except FileNotFoundError:
        raise InputError(
            f"{printable(store.uri)} holds no labelling run. Give the folder that --out named."
        ) from None
    except ValidationError as error:
        raise InputError(
            f"{printable(store.uri)}/{LabellingRun.RECORD} was not written by this version of "
            "cifar-ray, or is damaged."
        ) from error


def dataset(destination: str | PathLike[str]) -> ds.Dataset:
    """Return the rows that a run has so far as a dataset of pyarrow's, which reads when asked.

    It holds the parts that are there now; ask again for what a running run has written since.
    Raises `InputError` if there is no run.
    """
    store = open_store(fspath(destination))
    record = run_record(store)
    schema = row_schema(record.config, record.source.carried)
    folder, file_system = _place(store)
    # Named one by one, so that it is known which are read: a folder is looked at more than once.
    paths = [f"{folder}/{LabellingRun.PREDICTIONS}/{name}" for name in part_names(store)]
    return ds.dataset(paths, schema=schema, format="parquet", filesystem=file_system)


def _place(store: Store) -> tuple[str, FileSystem]:
    """Return where a run lies as pyarrow names it."""
    if isinstance(store, FolderStore):
        return str(store.root), LocalFileSystem()
    # boto3 takes a third of a second to load.
    from cifar_ray.storage.s3_arrow import arrow_file_system
    from cifar_ray.storage.s3_bucket import Bucket

    place = store.uri.removeprefix(S3_SCHEME)
    return place, arrow_file_system(Bucket(place.partition("/")[0]))


def read_rows(store: Store, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows in the order of shards, a few thousand at a time."""
    for name in part_names(store):
        with (
            store.open(f"{LabellingRun.PREDICTIONS}/{name}") as source,
            pq.ParquetFile(source) as file,
        ):
            yield from file.iter_batches(BATCH_ROWS, columns=list(columns))


def row_dicts(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return a batch as one dict a row."""
    rows: list[dict[str, Any]] = batch.to_pylist()
    return rows
