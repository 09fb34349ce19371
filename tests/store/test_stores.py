"""What every place of a run does alike: a folder and a bucket."""

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cifar_ray.errors import InputError, StoreUnavailable
from cifar_ray.prediction.care.marks import set_mark
from cifar_ray.runs import ShardName
from cifar_ray.storage import Store, open_store
from cifar_ray.storage.base import TEMPORARY
from cifar_ray.storage.s3 import MULTIPART_BYTES, S3Store
from tests.store.conftest import BUCKET
from tests.store.proxy import FaultProxy, Rule


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, place: str) -> Store:
    return open_store(str(tmp_path / "run") if request.param == "folder" else f"{place}/run")


def visible(store: Store) -> list[str]:
    return [name for name in store.names("") if name != TEMPORARY]


def test_a_write_replaces(store: Store) -> None:
    store.write("a/b.bin", b"one")
    store.write("a/b.bin", b"two")
    assert store.read("a/b.bin") == b"two"
    assert store.names("a") == ["b.bin"]
    assert store.names("_tmp") == []


def test_what_is_not_there_is_told_as_such(store: Store) -> None:
    assert store.names("") == []
    assert store.names("nothing", "x") == []
    assert not store.exists("nothing")
    with pytest.raises(FileNotFoundError):
        store.read("nothing")
    with pytest.raises(FileNotFoundError):
        store.open("nothing")
    with pytest.raises(FileNotFoundError):
        store.move("nothing", "elsewhere")
    store.delete("nothing")
    store.sweep()


def test_names_are_those_directly_in_a_folder_in_order(store: Store) -> None:
    for name in ("p/shard-0001-2", "p/shard-0000-1", "p/shard-0001-1", "p/below/x", "p.txt"):
        store.write(name, b"x")
    assert store.names("p") == ["below", "shard-0000-1", "shard-0001-1", "shard-0001-2"]
    assert store.names("p", "shard-0001-") == ["shard-0001-1", "shard-0001-2"]
    assert visible(store) == ["p", "p.txt"]


def test_delete_takes_a_file_or_all_of_a_folder_and_nothing_beside_it(store: Store) -> None:
    for name in ("a/1", "a/b/2", "ab", "a.txt"):
        store.write(name, b"x")
    store.delete("a")
    assert visible(store) == ["a.txt", "ab"]
    store.delete("ab")
    assert visible(store) == ["a.txt"]


def test_move_replaces_what_is_there(store: Store) -> None:
    store.write("old", b"old")
    store.write("new/name", b"older")
    store.move("old", "new/name")
    assert store.read("new/name") == b"old"
    assert not store.exists("old")


def test_of_many_that_create_one_file_one_wins_and_its_bytes_stay(store: Store) -> None:
    won: list[int] = []
    start = threading.Barrier(8)

    def create(number: int) -> None:
        start.wait()
        if store.create("chunk", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read("chunk") == str(won[0]).encode()
    assert store.names("_tmp") == []


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3_000_000])
def test_an_opened_file_reads_and_seeks(store: Store, size: int) -> None:
    data = bytes(i * 31 % 251 for i in range(size))
    store.write("file", data)
    with store.open("file") as file:
        assert file.read() == data
        assert file.seek(-min(10, size), 2) == max(0, size - 10)
        assert file.read(4) == data[-min(10, size) :][:4]
        file.seek(size // 3)
        assert file.read(100_000) == data[size // 3 :][:100_000]
        assert file.seek(size + 5) == size + 5
        assert file.read(1) == b""


def half_a_write(store: Store) -> None:
    with store.staged("x") as path:
        path.write_bytes(b"half")
        raise RuntimeError


def test_a_staged_file_that_fails_leaves_the_old_one(store: Store) -> None:
    store.write("x", b"old")
    with pytest.raises(RuntimeError):
        half_a_write(store)
    assert store.read("x") == b"old"
    with store.staged("x") as path:
        path.write_bytes(b"whole")
    assert store.read("x") == b"whole"


def test_a_store_travels_without_its_connections_and_credentials(store: Store) -> None:
    store.write("x", b"there")
    data = pickle.dumps(store)
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in data
    arrived: Store = pickle.loads(data)
    assert arrived.read("x") == b"there"


def test_a_parquet_footer_costs_one_request(place: str, proxy: FaultProxy) -> None:
    store = open_store(place)
    table = pa.table({"x": range(200_000)})
    with store.staged("part.parquet") as path:
        pq.write_table(table, path)
    proxy.requests.clear()
    with store.open("part.parquet") as file:
        pq.read_schema(file)
    assert len(proxy.requests) == 1
    with store.open("part.parquet") as file:
        assert pq.read_table(file) == table


def test_a_large_file_goes_up_in_parts_and_not_at_all_if_one_fails(
    place: str, prefix: str, proxy: FaultProxy, client: Any
) -> None:
    store = open_store(place)
    data = b"x" * (MULTIPART_BYTES + 10)
    store.write("large", data)
    assert store.read("large") == data
    assert any("uploadId" in request for request in proxy.requests)
    proxy.add(Rule("^PUT .*partNumber=2", 403))
    with pytest.raises(StoreUnavailable, match="denies"):
        store.write("large", b"y" * (MULTIPART_BYTES + 10))
    assert store.read("large") == data
    assert not client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads")


def test_sweeping_aborts_abandoned_uploads_of_this_run_alone(
    place: str, prefix: str, client: Any
) -> None:
    for key in ("mine/part", "mine/other", "another"):
        client.create_multipart_upload(Bucket=BUCKET, Key=prefix + key)
    store = open_store(f"{place}/mine")
    store.write("_tmp/left", b"x")
    store.sweep()
    left = client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)["Uploads"]
    assert [upload["Key"] for upload in left] == [f"{prefix}another"]
    assert store.names("") == []


def test_a_note_is_made_once_and_can_be_taken_away(store: Store) -> None:
    assert store.note("notes/one", b"mine")
    assert not store.note("notes/one", b"another's")
    assert store.read("notes/one") == b"mine"
    assert store.names("notes") == ["one"]
    store.delete("notes/one")
    assert store.note("notes/one", b"another's")


def test_a_mark_of_a_dead_worker_is_found_even_if_the_store_is_asked_twice(
    place: str, proxy: FaultProxy
) -> None:
    store = open_store(place)
    assert not set_mark(store, ShardName(0, 1))
    proxy.add(Rule("^PUT .*_marks", 503, times=1))
    assert set_mark(store, ShardName(0, 1))


def test_without_the_right_to_list_uploads_that_is_said_and_the_rest_is_swept(
    place: str, proxy: FaultProxy
) -> None:
    store = open_store(place)
    store.write("_tmp/left", b"x")
    assert store.sweep() is None
    store.write("_tmp/left", b"x")
    proxy.add(Rule("^GET .*uploads", 403))
    said = store.sweep()
    assert said is not None
    assert "s3:ListBucketMultipartUploads" in said
    assert store.names("") == []


@pytest.mark.parametrize("action", [503, 500, "reset", "cut"])
def test_faults_that_pass_are_waited_out(place: str, proxy: FaultProxy, action: Any) -> None:
    store = open_store(place)
    data = bytes(range(256)) * 2000
    proxy.add(Rule("", action, times=2))
    store.write("x", data)
    proxy.add(Rule("", action, times=2))
    assert store.read("x") == data
    proxy.add(Rule("", action, times=2))
    assert store.names("") == ["x"]
    with store.open("x") as file:
        proxy.add(Rule("", action, times=2))
        assert file.read() == data


def test_a_create_whose_answer_was_lost_was_ours(place: str, proxy: FaultProxy) -> None:
    store = open_store(place)
    assert store.create("first", b"1")
    proxy.add(Rule("^PUT .*/mine", "cut", times=1))
    assert store.create("mine", b"mine")
    assert not store.create("mine", b"others")
    assert store.read("mine") == b"mine"


def forget_the_condition(params: dict[str, Any], **_: Any) -> None:
    params["headers"].pop("If-None-Match", None)


def test_a_store_that_ignores_if_none_match_is_found_out(place: str) -> None:
    store = open_store(place)
    assert isinstance(store, S3Store)
    events = store.bucket.client.meta.events
    events.register("before-call.s3.PutObject", forget_the_condition)
    assert store.create("x", b"one")
    assert not store.create("x", b"two")
    assert store.read("x") == b"one"


def test_what_is_wrong_with_a_place_is_said_at_the_start(
    place: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="there is no such bucket"):
        open_store("s3://no-such-bucket/x").check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(InputError, match="no credentials that it takes") as told:
        open_store(place).check()
    assert "wrong-secret" not in str(told.value)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InputError, match="AWS_PROFILE"):
        open_store(place).check()


def test_credentials_are_looked_for_again_when_they_were_refused(
    place: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(place)
    store.write("x", b"x")
    proxy.add(Rule("", 400, times=1, code="ExpiredToken"))
    with pytest.raises(StoreUnavailable, match="ExpiredToken"):
        store.read("x")
    assert store.read("x") == b"x"


def test_a_place_without_a_bucket_is_refused() -> None:
    for uri in ("s3://", "s3:///x", "s3://b", "s3://bad bucket/x"):
        with pytest.raises(InputError, match="names no bucket"):
            open_store(uri)
