"""Reads the first directory of a TIFF stream, which is also what an EXIF block is.

After the TIFF 6.0 specification, section 2. Classic TIFF only: a BigTIFF reads as no tags.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

ORIENTATION = 274
_STRIPS, _TILES = (273, 279), (324, 325)
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_INTEGER_FORMATS = {1: "B", 3: "H", 4: "I"}
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}


class _Entry(NamedTuple):
    tag: int
    kind: int
    num_values: int
    at: int
    """Where its value begins."""
    end: int


def read_tag(data: bytes, tag: int) -> tuple[int, ...]:
    """Return an integer tag of the first directory, `()` if absent.

    Raises `struct.error` if it lies beyond `data`.
    """
    for entry in _entries(data):
        if entry.tag == tag:
            return _integers(data, entry)
    return ()


def is_cut_short(data: bytes) -> bool:
    """Tell whether the first directory, a value of it or its picture lies beyond `data`."""
    try:
        entries = {entry.tag: entry for entry in _entries(data)}
        if any(entry.end > len(data) for entry in entries.values()):
            return True
        return any(
            offset + count > len(data)
            for offsets, counts in (_STRIPS, _TILES)
            if offsets in entries and counts in entries
            for offset, count in zip(
                _integers(data, entries[offsets]), _integers(data, entries[counts]), strict=False
            )
        )
    except struct.error:
        return True


def _entries(data: bytes) -> Iterator[_Entry]:
    order = _ORDERS.get(data[:4])
    if order is None:
        return
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (num_entries,) = struct.unpack_from(order + "H", data, directory)
    for index in range(num_entries):
        start = directory + 2 + 12 * index
        tag, kind, count, offset = struct.unpack_from(order + "HHII", data, start)
        size = _TYPE_SIZES.get(kind, 1) * count
        at = start + 8 if size <= 4 else offset
        yield _Entry(tag, kind, count, at, at + size)


def _integers(data: bytes, entry: _Entry) -> tuple[int, ...]:
    if entry.kind not in _INTEGER_FORMATS or entry.end > len(data):
        raise struct.error("no integers, or beyond the data")
    layout = f"{_ORDERS[data[:4]]}{entry.num_values}{_INTEGER_FORMATS[entry.kind]}"
    return struct.unpack_from(layout, data, entry.at)
