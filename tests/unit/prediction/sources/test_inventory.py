import gzip
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cifar_ray.errors import InputError
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.storage import FolderStore
from tests.unit.prediction.sources.forms import kinds, listed, open_form

SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"
PARQUET_SCHEMA = (
    "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); "
    "optional boolean is_latest; optional boolean is_delete_marker; optional int64 size; "
    "optional binary e_tag (UTF8); }"
)
KEYS = [f"photos/{number:03}.jpg" for number in range(40)]
ODD = {"photos/a+b%20c+%C3%BC.jpg": "photos/a b c ü.jpg", "photos/1%2B1.jpg": "photos/1+1.jpg"}


def csv_line(key: str, latest: str = "true", deleted: str = "false", bucket: str = "photos") -> str:
    etag = hashlib.sha256(key.encode()).hexdigest()[:32]
    return f'"{bucket}","{key}","v","{latest}","{deleted}","7","2026-01-01T00:00:00Z","{etag}"\n'


def write(folder: Path, parts: list[str], place: str = "data", **changes: object) -> Path:
    """Write an inventory in CSV: a gzipped data file for each of `parts`."""
    files = []
    for number, text in enumerate(parts):
        path = folder / place / f"part-{number}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))
        key = f"inventory/photos/config/data/{path.name}"
        files.append({"key": key, "size": path.stat().st_size, "MD5checksum": "-"})
    manifest = {
        "sourceBucket": "photos",
        "destinationBucket": "arn:aws:s3:::inventories",
        "version": "2016-11-30",
        "fileFormat": "CSV",
        "fileSchema": SCHEMA,
        "files": files,
        **changes,
    }
    path = folder / "manifest.json"
    path.write_text(json.dumps(manifest))
    return path


def test_keys_are_decoded_and_listed_in_the_order_of_the_files(tmp_path: Path) -> None:
    lines = [csv_line(key) for key in (*KEYS, *ODD)]
    path = write(tmp_path, ["".join(lines[:25]), "".join(lines[25:])])
    source = open_form(path)
    entries = listed(source)
    assert [entry.key for entry in entries] == [*KEYS, *ODD.values()]
    assert entries[0].version == hashlib.sha256(KEYS[0].encode()).hexdigest()[:32]
    assert entries[0].size_bytes == 7
    assert source.uri(entries[0]) == f"s3://photos/{KEYS[0]}"
    for at in (0, 10, 24, 25, 41):
        assert listed(source, entries[at].cursor) == entries[at + 1 :]


def test_only_the_latest_versions_count(tmp_path: Path) -> None:
    lines = csv_line("a.jpg") + csv_line("a.jpg", "false") + csv_line("gone.jpg", "true", "true")
    source = open_form(write(tmp_path, [lines + csv_line("folder/") + csv_line("b.txt")]))
    assert [entry.key for entry in listed(source)] == ["a.jpg"]
    assert kinds(source) == ["(delete marker)", "(folder marker)", "(older version)", ".txt"]


def test_what_a_bucket_does_not_list_an_inventory_does_not_either(tmp_path: Path) -> None:
    lines = [csv_line(key) for key in ("a.jpg", "b_%24folder%24", "c/../d.jpg", "./e.jpg")]
    source = open_form(write(tmp_path, ["".join(lines)]))
    assert [entry.key for entry in listed(source)] == ["a.jpg"]
    assert kinds(source) == ["(. or .. as a folder)"] * 2 + ["(folder marker)"]


def test_parquet_inventories_are_read_with_keys_as_they_are(tmp_path: Path) -> None:
    table = pa.table(
        {
            "bucket": ["photos"] * 3,
            "key": ["50%20.jpg", "a.jpg", "c.jpg"],
            "is_latest": [True, False, True],
            "is_delete_marker": [False, False, True],
            "size": pa.array([7, 8, None], pa.int64()),
            "e_tag": ["x", "y", None],
        }
    )
    pq.write_table(table, tmp_path / "p.parquet")
    size = (tmp_path / "p.parquet").stat().st_size
    files = [{"key": "inventory/data/p.parquet", "size": size}]
    path = write(tmp_path, [], fileFormat="Parquet", fileSchema=PARQUET_SCHEMA, files=files)
    source = open_form(path)
    assert [(e.key, e.version, e.size_bytes) for e in listed(source)] == [("50%20.jpg", "x", 7)]
    assert kinds(source) == ["(delete marker)", "(older version)"]


@pytest.mark.parametrize("place", [".", "data", "../data"])
def test_data_files_are_found_as_s3_lays_them_out_or_copied_together(
    place: str, tmp_path: Path
) -> None:
    (tmp_path / "dated").mkdir()
    path = write(tmp_path / "dated", [csv_line("a.jpg")], place)
    assert [entry.key for entry in listed(open_form(path))] == ["a.jpg"]


def test_a_run_lists_an_inventory_into_shards(tmp_path: Path) -> None:
    source = open_form(write(tmp_path, ["".join(map(csv_line, KEYS))]))
    manifest = Manifest(FolderStore(tmp_path / "out"), 16)
    shards = list(manifest.shards(0, source.listing(0)))
    assert [entry.key for name in shards for entry in manifest.entries(name)] == KEYS


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fileFormat": "ORC"}, "inventories in CSV or Parquet"),
        ({"sourceBucket": None}, "is no manifest of an S3 Inventory"),
        ({"fileSchema": "Bucket, Key"}, "without etag, size"),
        ({"files": [{"key": "data/none.csv.gz"}]}, "is not there. Copy it"),
        ({"files": [{"key": "data/part-0.csv.gz", "size": 1}]}, "and shall have 1. Copy it again"),
        ({"files": [{"key": "../.."}]}, "is not there. Copy it"),
    ],
)
def test_an_inventory_that_cannot_be_used_is_refused(
    changes: dict[str, object], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        open_form(write(tmp_path, [csv_line("a.jpg")], **changes))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (csv_line("a.jpg", bucket="other"), "lists other too"),
        (csv_line("a.jpg") + "b,c\n", "damaged at row 2"),
        (csv_line("%ff.jpg"), "damaged at row 1"),
    ],
)
def test_a_data_file_that_makes_no_sense_is_an_error(
    text: str, reason: str, tmp_path: Path
) -> None:
    source = open_form(write(tmp_path, [text]))
    with pytest.raises(InputError, match=reason):
        listed(source)


def test_a_data_file_that_was_cut_is_an_error_and_no_gap(tmp_path: Path) -> None:
    path = write(tmp_path, ["".join(map(csv_line, KEYS))])
    source = open_form(path)
    data = tmp_path / "data" / "part-0.csv.gz"
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    with pytest.raises(InputError, match="is damaged at row"):
        listed(source)
