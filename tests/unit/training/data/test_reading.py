import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cifar_ray.training.data.bucket import TarMember
from cifar_ray.training.data.dataset import read_parquet, read_shards
from cifar_ray.training.data.reading import PARQUET_ROWS, Place, Reader

NUM_ROWS = 3 * PARQUET_ROWS + 5


@pytest.fixture(params=["bytes", "struct"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> list[Place]:
    """Rows in two groups, of which the larger one is read in several pieces; one image is null."""
    images = [f"image {number}".encode() for number in range(NUM_ROWS)]
    column = [None if number == 7 else image for number, image in enumerate(images)]
    if request.param == "struct":
        column = [{"bytes": image, "path": "x"} for image in column]
    table = pa.table({"label": [0] * NUM_ROWS, "image": column})
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=NUM_ROWS - 10)
    found = read_parquet([tmp_path / "d.parquet"], leave_images=True)
    assert found.images[8][0] == read_parquet([tmp_path / "d.parquet"]).images[8][0]
    return [place for _, place in found.images]


def test_rows_are_read_in_any_order_and_a_null_is_no_bytes(places: list[Place]) -> None:
    numbers = [0, 1, 5, PARQUET_ROWS, NUM_ROWS - 11, NUM_ROWS - 10, NUM_ROWS - 1, 4, 3, 7]
    with Reader() as reader:
        found = [reader.read(places[number]) for number in numbers]
    assert found == [*(f"image {number}".encode() for number in numbers[:-1]), b""]


def test_rows_that_follow_one_another_are_read_once(
    places: list[Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    parquet_file = pq.ParquetFile
    monkeypatch.setattr(
        pq, "ParquetFile", lambda *args, **more: opened.append(args) or parquet_file(*args, **more)
    )
    with Reader() as reader:
        for place in places[::3]:
            reader.read(place)
    assert len(opened) == 2


def test_members_of_archives_and_rows_are_read_by_one_reader(
    places: list[Place], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        for name, content in (("1.png", b"first"), ("1.cls", b"3"), ("2.png", b"second")):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
        header = tarfile.TarInfo("2.cls")
        header.size = 1
        tar.addfile(header, io.BytesIO(b"4"))
    members = [place for _, place in read_shards([tmp_path / "d.tar"]).images]
    assert all(isinstance(place, TarMember) for place in members)
    with Reader() as reader:
        order = [members[1], places[2], members[0], places[1]]
        found = [reader.read(place) for place in order]
    assert found == [b"second", b"image 2", b"first", b"image 1"]
