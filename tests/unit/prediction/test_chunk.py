"""A chunk's digest is that of its images, however its columns lie in memory."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cifar_ray.prediction.chunk import Chunk, read_chunk
from cifar_ray.prediction.manifest import RangeEnd, chunk_bytes
from cifar_ray.prediction.sources import Entry

CARRIED = [("carried.number", pa.int16()), ("carried.name", pa.string())]
IMAGES = [
    Entry("a/ä.jpg", "17-4", 4, None, None, (1, "x")),
    Entry("b.jpg", "18-5", 5, b"\xe9.jpg", None, (None, None)),
    Entry("", "", 0, None, None, (-3, "")),
]


def test_images_come_back_from_their_file_as_they_were_with_the_same_digest() -> None:
    chunk = read_chunk(io.BytesIO(chunk_bytes(IMAGES, RangeEnd(3, {}), carried=CARRIED)))
    assert chunk.entries() == IMAGES
    assert chunk.digest == Chunk.of(IMAGES, CARRIED).digest


def test_a_digest_does_not_depend_on_how_the_columns_are_divided() -> None:
    table = Chunk.of(IMAGES, CARRIED).table
    divided = Chunk(pa.concat_tables([table.slice(0, 1), table.slice(1, 0), table.slice(1)]))
    assert divided.table["key"].num_chunks > 1
    assert divided.digest == Chunk(table).digest
    assert Chunk(table.slice(1)).digest == Chunk.of(IMAGES[1:], CARRIED).digest
    assert Chunk.of([]).digest == Chunk(Chunk.of(IMAGES).table.slice(3)).digest


@pytest.mark.parametrize(
    "other",
    [
        [Entry("a", "bc", 1), Entry("de", "f", 2)],
        [Entry("ab", "c", 1), Entry("d", "ef", 2)],
        [Entry("ab", "c", 2), Entry("de", "f", 1)],
        [Entry("de", "f", 2), Entry("ab", "c", 1)],
        [Entry("abd", "c", 1), Entry("e", "f", 2)],
        [Entry("ab", "c", 1), Entry("de", "f", 2), Entry("", "", 0)],
    ],
)
def test_other_images_have_another_digest(other: list[Entry]) -> None:
    assert Chunk.of([Entry("ab", "c", 1), Entry("de", "f", 2)]).digest != Chunk.of(other).digest


def test_some_of_the_images_can_be_taken_in_any_order() -> None:
    assert Chunk.of(IMAGES, CARRIED).take([2, 0]).entries() == [IMAGES[2], IMAGES[0]]


def test_what_is_carried_is_part_of_the_digest() -> None:
    one, two = (Chunk.of([Entry("a", "b", 1, carried=(n, "x"))], CARRIED) for n in (1, 2))
    assert one.digest != two.digest


def test_a_file_with_other_columns_is_no_chunk() -> None:
    buffer = io.BytesIO()
    pq.write_table(Chunk.of(IMAGES).table.drop_columns(["version"]), buffer)
    with pytest.raises(ValueError, match="other columns"):
        read_chunk(io.BytesIO(buffer.getvalue()))
