"""Containers as they come, and as attackers make them."""

import io
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import ImageFault, InputError
from cifar_ray.prediction.sources import Entry, Skipped, Source, find_source
from cifar_ray.prediction.sources.base import MAX_IMAGE_BYTES
from tests.unit.prediction.sources.forms import kinds, listed, open_form

TAR_FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def add(tar: tarfile.TarFile, name: str, data: bytes = b"x", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def contents(source: Source) -> dict[str, bytes]:
    fetcher = source.fetcher()
    return {entry.key: fetcher.fetch(entry) for entry in listed(source)}


def status_of(source: Source, key: str) -> str:
    (entry,) = (entry for entry in listed(source) if entry.key == key)
    with pytest.raises(ImageFault) as fault:
        source.fetcher().fetch(entry)
    return fault.value.status


@pytest.mark.parametrize("kind", TAR_FORMATS)
def test_tar_names_of_every_length_and_alphabet_are_read(kind: str, tmp_path: Path) -> None:
    names = ["a.jpg", "ü/ä.jpg", "d" * 90 + "/" + "e" * 60 + ".jpg"]
    if kind != "ustar":
        names += ["f" * 300 + ".jpg", "g/" * 150 + "h.jpg"]
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=TAR_FORMATS[kind]) as tar:
        for name in names:
            add(tar, name, name.encode())
    assert contents(open_form(path)) == {name: name.encode() for name in names}


def test_tar_names_that_are_not_utf8_are_percent_encoded_as_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with open(os.fsencode(tmp_path / "in") + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"x")
    for kind, format_ in TAR_FORMATS.items():
        with tarfile.open(tmp_path / f"{kind}.tar", "w", format=format_) as tar:
            tar.add(tmp_path / "in", arcname="")
        assert contents(open_form(tmp_path / f"{kind}.tar")) == {"caf%E9.jpg": b"x"}


def test_what_a_tar_holds_beside_files_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "folder", b"", type=tarfile.DIRTYPE)
        add(tar, "link.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.jpg", b"", type=tarfile.LNKTYPE, linkname="a.jpg")
        add(tar, "pipe.jpg", b"", type=tarfile.FIFOTYPE)
        add(tar, "sparse.jpg", b"x", pax_headers={"GNU.sparse.major": "1"})
        add(tar, "a.jpg")
        add(tar, "a.json")
        add(tar, "a.cls")
        add(tar, ".hidden.jpg")
        add(tar, "../../outside.jpg")
    source = open_form(path)
    assert [entry.key for entry in listed(source)] == ["a.jpg"]
    reasons = ["(device, pipe or socket)", "(hidden)", "(hidden)", "(link)", "(link)"]
    assert kinds(source) == [*reasons, "(sparse file)", ".cls", ".json"]


def test_tars_that_were_appended_to_each_other_are_read_to_the_end(tmp_path: Path) -> None:
    for number in range(3):
        with tarfile.open(tmp_path / f"{number}.part", "w") as tar:
            add(tar, f"{number}.jpg")
    parts = [(tmp_path / f"{number}.part").read_bytes() for number in range(3)]
    (tmp_path / "s.tar").write_bytes(b"".join(parts))
    assert list(contents(open_form(tmp_path / "s.tar"))) == ["0.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize("cut", [512 * 9, 512 * 9 + 100, 512 * 10 + 5, 512 * 12])
def test_a_tar_that_was_cut_gives_its_members_before_the_cut_and_an_error(
    cut: int, tmp_path: Path
) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(10):
            add(tar, f"{number}.jpg", b"x" * 1000)
    path.write_bytes(path.read_bytes()[:cut])
    items = open_form(path).listing(0).entries(None)
    whole = [next(items) for _ in range(cut // (3 * 512))]
    assert [getattr(item, "key", None) for item in whole] == [f"{n}.jpg" for n in range(len(whole))]
    with pytest.raises(InputError, match=r"cannot be read to its end: it ends (within|before)"):
        next(items)


def test_a_damaged_tar_header_is_an_error_and_no_gap(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        add(tar, "a.jpg")
        add(tar, "b.jpg")
    data = bytearray(path.read_bytes())
    data[1024 + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="no header at byte 1,024"):
        listed(open_form(path))


def test_a_tar_header_that_promises_much_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 2**33
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        with pytest.raises(InputError, match="an extended header of 8,589,934,592 bytes"):
            listed(open_form(path))


@pytest.mark.parametrize("name", ["s.tgz", "s.tar.gz", "s.tar.zst"])
def test_a_compressed_tar_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError, match="Decompress it"):
        find_source(str(tmp_path / name))


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_zip_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", {"a.jpg": b"x" * 1000, "b.jpg": b"y"})
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 30, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="it has no directory"):
            listed(open_form(path))


def test_a_zip_member_that_fails_its_checksum_is_no_image(tmp_path: Path) -> None:
    members = {f"{number}.jpg": bytes([number]) * 500 for number in range(3)}
    path = write_zip(tmp_path / "s.zip", members, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"\1" * 500) + 3] ^= 1
    path.write_bytes(data)
    source = open_form(path)
    assert status_of(source, "1.jpg") == "fetch_failed"
    fetcher = source.fetcher()
    good = [entry for entry in listed(source) if entry.key != "1.jpg"]
    assert [fetcher.fetch(entry) for entry in good] == [members["0.jpg"], members["2.jpg"]]


def test_a_zip_bomb_is_unpacked_no_further_than_its_directory_says(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", {"bomb.jpg": bytes(2**24), "good.jpg": b"x"})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 24 : at + 28] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    source = open_form(path)
    assert status_of(source, "bomb.jpg") == "fetch_failed"
    data[at + 24 : at + 28] = (MAX_IMAGE_BYTES + 1).to_bytes(4, "little")
    path.write_bytes(data)
    assert status_of(open_form(path), "bomb.jpg") == "too_large"


def test_what_a_zip_holds_that_is_not_read_gets_a_status_or_is_skipped(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", {"bz.jpg": b"x"}, zipfile.ZIP_BZIP2)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("folder/", b"")
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("locked.jpg", b"x")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2")
    data[at + 8] |= 1
    path.write_bytes(data)
    source = open_form(path)
    assert kinds(source) == ["(link)"]
    assert [status_of(source, key) for key in ("bz.jpg", "locked.jpg")] == ["unsupported"] * 2


def test_zip_names_without_a_mark_are_taken_as_bytes(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", {"caf_.jpg": b"x", "uum.jpg": b"y"})
    data = path.read_bytes().replace(b"caf_", b"caf\xe9").replace(b"uum", "üm".encode())
    path.write_bytes(data)
    assert contents(open_form(path)) == {"caf%E9.jpg": b"x", "üm.jpg": b"y"}


def test_equal_names_in_one_container_are_two_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        add(tar, "a.jpg", b"1")
        add(tar, "a.jpg", b"22")
    source = open_form(tmp_path / "s.tar")
    fetcher = source.fetcher()
    assert [fetcher.fetch(entry) for entry in listed(source)] == [b"1", b"22"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_parquet_rows_without_a_path_are_numbered(kind: pa.DataType, tmp_path: Path) -> None:
    images = [b"0", None, b"", b"3"]
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"image": pa.array(images, kind)}), path, row_group_size=3)
    assert contents(open_form(path)) == {"0": b"0", "1": b"", "2": b"", "3": b"3"}
    structs = [{"bytes": b"a", "path": "x.png"}, {"bytes": b"b", "path": None}]
    pq.write_table(pa.table({"image": structs}), path)
    assert contents(open_form(path)) == {"x.png": b"a", "1": b"b"}


def test_parquet_columns_are_carried(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    table = pa.table({"image": [b"0", b"1"], "truth": pa.array([7, None], pa.int16())})
    pq.write_table(table, path)
    source = open_form(path, None, LabellingConfig(columns=("truth",)))
    assert source.reference.carried[0].type == "int16"
    assert [entry.carried for entry in listed(source)] == [(7,), (None,)]


def test_a_parquet_file_that_was_damaged_blames_its_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    images = [random.Random(number).randbytes(5000) for number in range(40)]
    table = pa.table({"path": [f"{n}.jpg" for n in range(40)], "image": images})
    pq.write_table(table, path, row_group_size=10, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    start = data.index(images[12][1000:1100])
    data[start - 3000 : start + 3000] = bytes(6000)
    path.write_bytes(data)
    source = open_form(path)
    fetcher, statuses = source.fetcher(), []
    for entry in listed(source):
        try:
            fetcher.fetch(entry)
            statuses.append("read")
        except ImageFault as fault:
            statuses.append(fault.status)
    assert statuses[:10] + statuses[20:] == ["read"] * 30
    assert set(statuses[10:20]) <= {"read", "fetch_failed"}


def test_rows_of_a_large_group_are_decoded_some_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    images = [random.Random(number).randbytes(100_000) for number in range(300)]
    # Arrow writes pages of a thousand rows, unless asked; a page is decoded whole.
    pages = {"use_dictionary": False, "write_batch_size": 8}
    pq.write_table(pa.table({"image": images}), path, row_group_size=300, **pages)
    source = open_form(path)
    fetcher = source.fetcher()
    entries = listed(source)
    pool = pa.default_memory_pool()
    before, highest = pool.bytes_allocated(), 0
    for entry, image in zip(entries, images, strict=True):
        assert fetcher.fetch(entry) == image
        highest = max(highest, pool.bytes_allocated() - before)
    assert 0 < highest < 20_000_000


def test_a_folder_of_containers_of_two_kinds_asks_for_a_pattern(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"a.jpg": b"x"})
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        add(tar, "b.jpg")
    with pytest.raises(InputError, match="Give a pattern"):
        find_source(str(tmp_path))
    assert contents(open_form(f"{tmp_path}/*.zip")) == {"a.zip/a.jpg": b"x"}


@pytest.mark.parametrize("text", ["gone", "gone/*.tar", "file.pdf"])
def test_what_is_no_source_is_refused_with_what_is(text: str, tmp_path: Path) -> None:
    (tmp_path / "file.pdf").write_bytes(b"%PDF")
    with pytest.raises(InputError, match="Allowed are a folder of images"):
        find_source(str(tmp_path / text))


def test_a_listing_of_a_million_members_holds_few_in_memory(tmp_path: Path) -> None:
    # Headers of empty members: the listing is what is looked at, not the images.
    import tracemalloc

    path = tmp_path / "s.tar"
    header = tarfile.TarInfo("a.jpg").tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(header * 20_000 + bytes(1024))
    source = open_form(path)
    tracemalloc.start()
    count = sum(isinstance(i, Entry | Skipped) for i in source.listing(0).entries(None))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 1_000_000
