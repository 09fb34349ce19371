import json
import os
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import ImageFault, InputError, StoreUnavailable
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.sources import find_source
from cifar_ray.prediction.sources.base import GONE
from cifar_ray.storage import FolderStore
from tests.unit.prediction.sources.forms import listed, open_form


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    for name in ("a.jpg", "b/c.jpg", "b/c d%.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def write_csv(root: Path, *uris: str, name: str = "m.csv") -> Path:
    path = root / name
    path.write_text("\n".join(["uri", *uris]) + "\n")
    return path


def test_keys_are_the_uris_as_written_in_their_order(root: Path) -> None:
    uris = ["b/c.jpg", "a.jpg", f"{root}/a.jpg", f"file://{root}/b/c%20d%25.jpg", "./b//c.jpg"]
    source = open_form(write_csv(root, *uris))
    assert [entry.key for entry in listed(source)] == uris
    fetcher = source.fetcher()
    contents = [fetcher.fetch(entry).decode() for entry in listed(source)]
    assert contents == ["b/c.jpg", "a.jpg", "a.jpg", "b/c d%.jpg", "b/c.jpg"]
    assert source.uri(listed(source)[0]) == f"file://{root}/b/c.jpg"


def test_names_that_are_not_utf8_are_reached_by_a_file_uri(root: Path) -> None:
    with open(os.fsencode(root) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"x")
    source = open_form(write_csv(root, "file://" + str(root) + "/caf%E9.jpg"))
    assert source.fetcher().fetch(listed(source)[0]) == b"x"


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("../root/a.jpg", "has a part `..`"),
        ("b/../../x.jpg", "has a part `..`"),
        ("/etc/passwd", "lies outside of it"),
        ("file:///etc/passwd", "lies outside of it"),
        ("file:///%65tc/passwd", "lies outside of it"),
        ("file://host/a.jpg", "is on another machine"),
        ("s3://bucket/a.jpg", "has a scheme that is not read here"),
        ("https://example.org/a.jpg", "has a scheme that is not read here"),
        ("file://", "names no file"),
        ('""', "has no `uri`"),
    ],
)
def test_a_uri_that_does_not_lie_below_the_root_is_refused_with_its_row(
    root: Path, uri: str, reason: str
) -> None:
    source = open_form(write_csv(root, "a.jpg", uri))
    with pytest.raises(InputError, match="row 2 .*" + reason) as error:
        listed(source)
    assert "each row needs a `uri`" in str(error.value)


def test_a_root_beside_the_manifest_bounds_its_uris(root: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path, "c.jpg", str(root / "a.jpg"))
    assert len(listed(open_form(path, root))) == 2
    with pytest.raises(InputError, match="lies outside of it"):
        listed(open_form(path, root / "b"))


def test_a_root_that_is_a_link_may_be_named_by_either_name(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    path = write_csv(tmp_path, str(root / "a.jpg"), f"{tmp_path}/link/a.jpg")
    assert len(listed(open_form(path, tmp_path / "link"))) == 2


def test_a_file_that_is_not_there_is_listed_and_not_found(root: Path) -> None:
    source = open_form(write_csv(root, "gone.jpg", "a.jpg"))
    gone, there = listed(source)
    assert (gone.version, gone.size_bytes) == (GONE, 0)
    with pytest.raises(ImageFault) as fault:
        source.fetcher().fetch(gone)
    assert fault.value.status == "not_found"
    assert source.fetcher().fetch(there) == b"a.jpg"


def test_a_root_that_goes_away_is_a_fault_of_the_store(root: Path, tmp_path: Path) -> None:
    source = open_form(write_csv(tmp_path, "a.jpg", "b/c.jpg"), root)
    items = source.listing(0).entries(None)
    next(items)
    root.rename(tmp_path / "away")
    with pytest.raises(StoreUnavailable):
        list(items)


def test_folders_and_pipes_are_skipped(root: Path) -> None:
    os.mkfifo(root / "pipe.jpg")
    assert listed(open_form(write_csv(root, "b", "pipe.jpg", "a.jpg")))[0].key == "a.jpg"


def test_csv_of_every_kind_is_read(root: Path) -> None:
    for text in (
        "\ufeffuri,x\r\na.jpg,1\r\nb/c.jpg,2\r\n",
        "x;uri\n1;a.jpg\n2;b/c.jpg",
        'x\turi\n"many\nlines"\ta.jpg\n\n2\t"b/c.jpg"\n',
    ):
        (root / "m.csv").write_bytes(text.encode())
        source = open_form(root / "m.csv")
        entries = listed(source)
        assert [entry.key for entry in entries] == ["a.jpg", "b/c.jpg"]
        assert listed(source, entries[0].cursor) == entries[1:]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("m.csv", b"url\na.jpg\n", "no column `uri`"),
        ("m.csv", b"", "no column `uri`"),
        ("m.csv", b"uri,x\na.jpg\n", "row 1 has 1 fields, the header 2"),
        ("m.csv", b'uri\na.jpg\n"b', "row 2 is no CSV"),
        ("m.csv", b"uri\na.jpg\n\xff.jpg\n", "line at byte 10 is not UTF-8"),
        ("m.csv", b"uri\n" + b"x" * 2**21, "is longer than"),
        ("m.jsonl", b'{"uri": "a.jpg"}\n[1]\n', "row 2 is no JSON object"),
        ("m.jsonl", b'{"uri": "a.jpg"}\n{"uri":\n', "row 2 is no JSON"),
        ("m.jsonl", b'{"uri": "a.jpg"}\n{"uri": 5}\n', "row 2 has no `uri`"),
        ("m.jsonl", b'{"uri": "a.jpg"}\n{"url": "x"}\n', "row 2 has no `uri`"),
        ("m.jsonl", b'{"uri": "\\ud800"}\n', "row 1 names"),
        ("m.jsonl", b"[" * 500_000, "row 1 is no JSON"),
        ("m.parquet", b"PAR1 and nothing else", "no Parquet file"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_with_the_place(
    root: Path, name: str, data: bytes, reason: str
) -> None:
    (root / name).write_bytes(data)
    with pytest.raises(InputError, match=reason):
        listed(open_form(root / name))


def test_a_parquet_manifest_is_listed_from_any_row_across_its_groups(root: Path) -> None:
    uris = ["a.jpg", "b/c.jpg"] * 50
    pq.write_table(pa.table({"uri": uris}), root / "m.parquet", row_group_size=7)
    source = open_form(root / "m.parquet")
    entries = listed(source)
    for at in range(100):
        assert listed(source, entries[at].cursor) == entries[at + 1 :]


def test_a_null_uri_is_refused(root: Path) -> None:
    pq.write_table(pa.table({"uri": ["a.jpg", None]}), root / "m.parquet")
    with pytest.raises(InputError, match="row 2 has no `uri`"):
        listed(open_form(root / "m.parquet"))


CARRIED = {
    "text": pa.array(["x", None], pa.string()),
    "kind": pa.array(["k", "k"]).dictionary_encode(),
    "number": pa.array([2**62, None], pa.int64()),
    "small": pa.array([-1, 2], pa.int8()),
    "share": pa.array([0.1, float("nan")], pa.float32()),
    "flag": pa.array([True, None], pa.bool_()),
    "day": pa.array([1, 2], pa.date32()),
    "taken": pa.array([datetime(2026, 1, 2, 3, 4, 5, 6), None], pa.timestamp("us", "UTC")),
    "nanos": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
    "raw": pa.array([b"\xff\0", None], pa.binary()),
}


def test_carried_columns_keep_values_and_types_through_the_manifest(root: Path) -> None:
    table = pa.table({"uri": ["a.jpg", "b/c.jpg"], **CARRIED})
    pq.write_table(table, root / "m.parquet")
    source = open_form(root / "m.parquet", None, LabellingConfig(columns=tuple(CARRIED)))
    manifest = Manifest(FolderStore(root / "out"), 10, source.reference.carried)
    (shard,) = manifest.shards(0, source.listing(0))
    entries = manifest.entries(shard)
    for at, (name, column) in enumerate(CARRIED.items()):
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        assert source.reference.carried[at].type == str(column.type)
        values = pa.array([entry.carried[at] for entry in entries], column.type)
        assert str(values) == str(column), name


def test_json_lines_carry_the_types_of_the_first_rows(root: Path) -> None:
    rows = [{"uri": "a.jpg", "n": 1, "x": 1, "s": "é", "b": True, "none": None}]
    rows += [{"uri": "b/c.jpg", "x": 1.5}]
    path = root / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = LabellingConfig(columns=("n", "x", "s", "b", "none"))
    source = open_form(path, None, config)
    types = [column.type for column in source.reference.carried]
    assert types == ["int64", "double", "string", "bool", "string"]
    assert [entry.carried for entry in listed(source)] == [
        (1, 1, "é", True, None),
        (None, 1.5, None, None, None),
    ]
    path.write_text(path.read_text() + json.dumps({"uri": "a.jpg", "n": "one"}) + "\n")
    late = source.listing(0)
    with pytest.raises(InputError, match="row 3 has a n that is no int64"):
        list(late.entries(None))


def test_csv_carries_text_as_it_is_written(root: Path) -> None:
    (root / "m.csv").write_text("id,uri\n007,a.jpg\n,b/c.jpg\n")
    source = open_form(root / "m.csv", None, LabellingConfig(columns=("id",)))
    assert [entry.carried for entry in listed(source)] == [("007",), ("",)]


@pytest.mark.parametrize(
    ("column", "reason"),
    [("uir", "Did you mean uri"), ("nested", "is not carried. Allowed are bool")],
)
def test_a_column_that_cannot_be_carried_is_refused(root: Path, column: str, reason: str) -> None:
    pq.write_table(pa.table({"uri": ["a.jpg"], "nested": [[1]]}), root / "m.parquet")
    with pytest.raises(InputError, match=reason):
        find_source(str(root / "m.parquet"), None, LabellingConfig(columns=(column,)))


def test_a_manifest_that_changes_has_another_digest(root: Path) -> None:
    path = write_csv(root, *["a.jpg"] * 100)
    before = find_source(str(path)).digest
    assert find_source(str(path)).digest == before
    path.write_text(path.read_text().replace("a.jpg", "b.jpg", 1))
    assert find_source(str(path)).digest != before
