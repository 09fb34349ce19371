"""Containers and manifests that lie in a bucket: the folder's keys and bytes in every form."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import ImageFault, InputError, StoreUnavailable
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.pipeline import label
from cifar_ray.prediction.plan import Request, destination_store, make_plan
from cifar_ray.prediction.sources import Source, find_source, s3_blobs
from cifar_ray.storage import Store, open_store
from tests.drawing import draw_folder
from tests.store.conftest import BUCKET
from tests.store.proxy import FaultProxy, Rule
from tests.unit.prediction.sources.forms import (
    FORMS,
    draw_store,
    file_keys,
    is_manifest,
    kinds,
    listed,
    make_form,
    open_form,
)

NAMES = ("größe 50%.jpg", "x#y?z.png", "no-extension", "semi;colon,.jpg")
OTHERS = ("notes.txt", "a/000.cls", ".hidden.jpg", "_tmp/x.jpg")
SAME_COLUMNS = ["key", "sha256", "status", "width", "height", "label", "confidence"]
EVERY_FORM = pytest.mark.parametrize("form", FORMS)
CONTAINERS = pytest.mark.parametrize("form", [form for form in FORMS if not is_manifest(form)])
MANIFESTS = pytest.mark.parametrize("form", [form for form in FORMS if is_manifest(form)])
Place = Callable[[str], Source]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 drawn images, some with odd names, and four files of other kinds."""
    return draw_store(tmp_path_factory.mktemp("forms") / "images", 40, NAMES, OTHERS)


@pytest.fixture
def upload(client: Any, prefix: str) -> Callable[[Path, str], str]:
    def upload(file: Path, name: str) -> str:
        client.put_object(Bucket=BUCKET, Key=prefix + name, Body=file.read_bytes())
        return f"s3://{BUCKET}/{prefix}{name}"

    return upload


@pytest.fixture
def in_bucket(
    folder: Path, tmp_path: Path, place: str, upload: Callable[[Path, str], str]
) -> Place:
    """Puts a form of the folder into the bucket; for a manifest, the images too."""

    def in_bucket(form: str) -> Source:
        path = make_form(form, folder, tmp_path / "packed")
        uri = upload(path, f"packed/{path.name}")
        if not is_manifest(form):
            return open_form(uri)
        for key in file_keys(folder):
            upload(folder / key, f"images/{key}")
        return open_form(uri, f"{place}/images")

    return in_bucket


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small container be many blocks."""
    monkeypatch.setattr(s3_blobs, "BLOCK_BYTES", 5000)


@EVERY_FORM
@pytest.mark.usefixtures("small_blocks")
def test_keys_bytes_and_what_is_skipped_are_those_of_the_folder(
    form: str, folder: Path, in_bucket: Place
) -> None:
    source = in_bucket(form)
    entries = listed(source)
    assert sorted(e.key for e in entries) == sorted(e.key for e in listed(open_form(folder)))
    assert kinds(source) == kinds(open_form(folder))
    fetcher = source.fetcher()
    mixed = entries + entries[::-7]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(fetcher.fetch, mixed)) == [
            (folder / entry.key).read_bytes() for entry in mixed
        ]
    for position in (0, 17, len(entries) - 1):
        assert listed(source, entries[position].cursor) == entries[position + 1 :]
    assert source.uri(entries[0]).startswith(f"s3://{BUCKET}/")


def test_a_container_is_read_once_and_in_large_pieces(in_bucket: Place, proxy: FaultProxy) -> None:
    source = in_bucket("tar")
    entries, fetcher = listed(source), source.fetcher()
    proxy.requests.clear()
    for entry in entries:
        fetcher.fetch(entry)
    assert len([request for request in proxy.requests if "s.tar" in request]) <= 4


@CONTAINERS
def test_faults_of_the_store_blame_no_member(
    form: str, folder: Path, in_bucket: Place, proxy: FaultProxy, client: Any, prefix: str
) -> None:
    source = in_bucket(form)
    entries = listed(source)
    for action in (503, "reset", "cut"):
        rule = proxy.add(Rule("^GET .*packed/", action, times=2))  # type: ignore[arg-type]
        data = source.fetcher().fetch(entries[5])
        assert data == (folder / entries[5].key).read_bytes()
        assert rule.seen == 2
    refused = proxy.add(Rule("^GET .*packed/", 403))
    with pytest.raises(StoreUnavailable, match="none of which is blamed"):
        source.fetcher().fetch(entries[5])
    proxy.rules.remove(refused)
    name = source.reference.uri.rpartition("/")[2]
    client.put_object(Bucket=BUCKET, Key=f"{prefix}packed/{name}", Body=b"another file")
    with pytest.raises(ImageFault) as fault:
        source.fetcher().fetch(entries[5])
    assert fault.value.status == "changed"
    client.delete_object(Bucket=BUCKET, Key=f"{prefix}packed/{name}")
    with pytest.raises(StoreUnavailable, match="blamed"):
        source.fetcher().fetch(entries[5])


def test_a_container_that_was_cut_is_named_behind_what_can_be_listed(
    folder: Path, tmp_path: Path, upload: Callable[[Path, str], str]
) -> None:
    path = make_form("tar", folder, tmp_path)
    path.write_bytes(path.read_bytes()[:100_000])
    source = open_form(upload(path, "s.tar"))
    with pytest.raises(InputError, match=r"s3://.*s\.tar cannot be read to its end"):
        listed(source)


def test_a_prefix_that_holds_containers_alone_is_one_of_them(
    folder: Path, tmp_path: Path, place: str, upload: Callable[[Path, str], str]
) -> None:
    path = make_form("tar", folder, tmp_path)
    for name in ("shards/1.tar", "shards/more/2.tar"):
        upload(path, name)
    source = open_form(f"{place}/shards")
    below = [entry.key for entry in listed(open_form(path))]
    entries = listed(source)
    assert [entry.key for entry in entries] == [
        f"{name}/{key}" for name in ("1.tar", "more/2.tar") for key in below
    ]
    last = entries[-1]
    assert source.fetcher().fetch(last) == (folder / last.key.split("2.tar/")[1]).read_bytes()
    assert listed(source, entries[len(below)].cursor) == entries[len(below) + 1 :]
    with pytest.raises(InputError, match="lies inside SOURCE"):
        destination_store(f"{place}/shards/out", source.reference)
    upload(folder / "no-extension", "shards/more/3.jpg")
    assert open_form(f"{place}/shards").reference.kind == "s3"


@MANIFESTS
def test_a_manifest_tells_what_is_gone_and_reads_nothing_outside_of_its_root(
    form: str, folder: Path, place: str, in_bucket: Place, client: Any, prefix: str
) -> None:
    source = in_bucket(form)
    gone = listed(source)[3].key
    client.delete_object(Bucket=BUCKET, Key=f"{prefix}images/{gone}")
    entries = {entry.key: entry for entry in listed(source)}
    with pytest.raises(ImageFault) as fault:
        source.fetcher().fetch(entries[gone])
    assert fault.value.status == "not_found"
    with pytest.raises(InputError, match="names no files of this machine"):
        find_source(source.reference.uri, str(folder))


def manifest_of(uris: list[str], file: Path) -> Path:
    file.write_text("".join(json.dumps({"uri": uri, "camera": 7}) + "\n" for uri in uris))
    return file


def test_uris_of_a_manifest_are_keys_or_paths_from_its_own_prefix(
    folder: Path, tmp_path: Path, place: str, upload: Callable[[Path, str], str]
) -> None:
    image = file_keys(folder)[5]
    upload(folder / image, "set/one.jpg")
    upload(folder / image, "other/two.jpg")
    uris = ["one.jpg", "./one.jpg", f"{place}/other/two.jpg"]
    uri = upload(manifest_of(uris, tmp_path / "m.jsonl"), "set/m.jsonl")
    source = open_form(uri, None, LabellingConfig(columns=("camera",)))
    entries = listed(source)
    assert [entry.key for entry in entries] == uris
    assert [entry.carried for entry in entries] == [(7,)] * 3
    fetcher = source.fetcher()
    assert {fetcher.fetch(entry) for entry in entries} == {(folder / image).read_bytes()}
    assert source.uri(entries[1]) == f"{place}/set/one.jpg"
    for wrong in (f"{place}/other/two.jpg", "../other/two.jpg", "/two.jpg", "file:///two.jpg"):
        path = manifest_of([wrong], tmp_path / "w.jsonl")
        with pytest.raises(InputError, match="row 1 names"):
            listed(open_form(path, f"{place}/set"))
    local = open_form(manifest_of(["two.jpg"], tmp_path / "l.jsonl"), f"{place}/other")
    assert local.fetcher().fetch(listed(local)[0]) == (folder / image).read_bytes()


def test_a_manifest_is_not_listed_wrongly_while_the_store_fails(
    in_bucket: Place, proxy: FaultProxy
) -> None:
    source = in_bucket("csv")
    for what in ("images/.*drawn", "packed/"):
        rule = proxy.add(Rule(what, 403, code="ExpiredToken"))
        with pytest.raises(StoreUnavailable, match="ExpiredToken"):
            listed(source)
        proxy.rules.remove(rule)
    assert all(entry.size_bytes for entry in listed(source))


def label_into(source: Source, store: Store, root: str | None = None) -> dict[str, list[Any]]:
    """Label a source and return its rows in the order of keys."""
    config = LabellingConfig(images_per_shard=500)
    request = Request(
        source.reference.uri, store.uri, None, None, config, ExecutionRequest(), root=root
    )
    plan = make_plan(request)
    engine = LocalEngine(store.uri, plan.source.reference, 1, 60.0)
    label(plan, engine, 1.0, lambda progress: None)
    parts = [f"predictions/{name}" for name in store.names("predictions")]
    rows = [row for part in parts for row in pq.read_table(store.open(part)).to_pylist()]
    rows.sort(key=lambda row: row["key"])
    return {column: [row[column] for row in rows] for column in SAME_COLUMNS}


@pytest.mark.parametrize("form", ["tar", "csv"])
def test_rows_are_those_of_the_folder(
    form: str, folder: Path, in_bucket: Place, place: str, tmp_path: Path
) -> None:
    expected = label_into(open_form(folder), open_store(str(tmp_path / "folder")))
    source = in_bucket(form)
    found = label_into(source, open_store(f"{place}/out"), source.reference.root)
    assert found == expected


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_rows_of_2000_images_are_those_of_the_folder_in_every_form(
    tmp_path: Path, place: str, upload: Callable[[Path, str], str]
) -> None:
    folder = tmp_path / "images"
    draw_folder(folder, count=2000)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_bytes(b"no picture")
    expected = label_into(open_form(folder), open_store(str(tmp_path / "folder")))
    for key in file_keys(folder):
        upload(folder / key, f"images/{key}")
    for form in FORMS:
        path = make_form(form, folder, tmp_path / "packed")
        uri = upload(path, f"packed/{path.name}")
        root = f"{place}/images" if is_manifest(form) else None
        out = open_store(f"{place}/out-{form}")
        assert label_into(open_form(uri, root), out, root) == expected, form
