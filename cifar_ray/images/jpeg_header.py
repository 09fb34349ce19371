"""Reads size, channels and orientation of a JPEG from its markers, in microseconds."""

import re
import struct
from typing import NamedTuple

from cifar_ray.errors import ImageFault
from cifar_ray.images.tiff_tags import ORIENTATION, read_tag

_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_MAX_MARKERS = 20_000
"""A hundred are many. A file of nothing but markers would keep a reader busy for minutes."""
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # these three are tables
_segment = struct.Struct(">xBH").unpack_from
_frame = struct.Struct(">HHB").unpack_from
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


class JpegHeader(NamedTuple):
    """Size as stored, before orientation (1–8, EXIF tag 274) is applied."""

    width: int
    height: int
    num_channels: int
    orientation: int
    progressive: bool


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Walk the markers up to the frame header; None if there is none to be found.

    Raises `ImageFault` for a file with more markers than any image has.
    """
    exif, xmp = b"", b""
    at = 2
    try:
        for _ in range(_MAX_MARKERS):
            marker, length = _segment(data, at)
            if data[at] != 0xFF or marker == _START_OF_SCAN:
                return None
            if marker == 0xFF:  # a fill byte
                at += 1
                continue
            if marker in _FRAME_HEADERS:
                height, width, num_channels = _frame(data, at + 5)
                orientation = _orientation(exif, xmp)
                progressive = marker in _PROGRESSIVE
                return JpegHeader(width, height, num_channels, orientation, progressive)
            if marker == _APP1:
                segment = data[at + 4 : at + 2 + length]
                if segment.startswith(_EXIF):
                    exif += segment[len(_EXIF) :]
                elif segment.startswith(_XMP):
                    xmp = segment
            at += 2 + length
    except (struct.error, IndexError):
        return None
    raise ImageFault("decode_failed", f"more than {_MAX_MARKERS} markers before the image")


def _orientation(exif: bytes, xmp: bytes) -> int:
    """Return EXIF's orientation, else XMP's, else 1: the order in which Pillow asks them."""
    if not exif and not xmp:
        return 1
    try:
        values = read_tag(exif, ORIENTATION)
    except struct.error:
        values = ()  # a damaged directory is not a damaged picture
    if values:
        return values[0]
    match = _XMP_ORIENTATION.search(xmp)
    return int(match[1]) if match else 1
