"""Tells what a file is from its first bytes, and whether it was cut short; never from its name."""

import struct
from typing import Literal

from cifar_ray.errors import ImageFault
from cifar_ray.images import tiff_tags

Format = Literal["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]

_SUPPORTED: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}
_UNSUPPORTED = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\x01\0", "ICO"),
    (b"\0\0\x02\0", "CUR"),
    (b"icns", "ICNS"),
    (b"8BPS", "Photoshop"),
    (b"gimp xcf", "XCF"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"IIRO", "camera raw"),
    (b"IIRS", "camera raw"),
    (b"IIU\0", "camera raw"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"SIMPLE  =", "FITS"),
    *((b"P%d\n" % kind, "Netpbm") for kind in range(1, 8)),
)
_BOX_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"crx ": "camera raw",
    **dict.fromkeys(
        (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"
    ),
}


def sniff(data: bytes) -> Format:
    """Return the format; `ImageFault` (`empty`, `unsupported`, `not_an_image`) if we read none."""
    if not data:
        raise ImageFault("empty", "the file has no bytes")
    name = _supported(data)
    if name is not None:
        return name
    other = _known_but_unread(data)
    if other is not None:
        raise ImageFault("unsupported", f"{other} is not read; convert it to JPEG, PNG or WebP")
    raise ImageFault("not_an_image", "the bytes are those of no known image format")


def is_cut_short(data: bytes, name: Format) -> bool:
    """Tell whether a file that would not decode ends before its own structure says it does."""
    try:
        return _CUT_SHORT[name](data)
    except (struct.error, IndexError):
        return True  # not even the structure is there


def _supported(data: bytes) -> Format | None:
    if data[8:11] == b"CR\x02":  # a camera's raw file that begins as a TIFF
        return None
    for magic, name in _SUPPORTED:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM" and _bmp_header_size(data) in _BMP_HEADER_SIZES:
        return "BMP"
    return None


def _known_but_unread(data: bytes) -> str | None:
    for magic, name in _UNSUPPORTED:
        if data.startswith(magic):
            return name
    if data[4:8] == b"ftyp":
        return _BOX_BRANDS.get(data[8:12])
    if data[8:11] == b"CR\x02":
        return "camera raw"
    return "SVG" if b"<svg" in data[:1024].lower() else None


def _bmp_header_size(data: bytes) -> int:
    return int.from_bytes(data[14:18], "little")


def _jpeg_is_cut(data: bytes) -> bool:
    scan = data.rfind(b"\xff\xda")
    # Thumbnails in the header have an end marker too, so only one after the scan counts.
    return scan < 0 or data.find(b"\xff\xd9", scan) < 0


def _png_is_cut(data: bytes) -> bool:
    at = 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            return False
        at += 12 + length


def _gif_is_cut(data: bytes) -> bool:
    """Walk the blocks (GIF89a, section 12) until the trailer, a strange byte or an IndexError."""
    at = 13 + _gif_colours(data[10])
    while data[at] in b"!,":
        if data[at : at + 1] == b"!":
            at += 2
        else:
            at += 11 + _gif_colours(data[at + 9])
        while data[at]:
            at += 1 + data[at]
        at += 1
    return False


def _gif_colours(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp_is_cut(data: bytes) -> bool:
    return int.from_bytes(data[4:8], "little") + 8 > len(data)


def _bmp_is_cut(data: bytes) -> bool:
    return len(data) < 26 or int.from_bytes(data[2:6], "little") > len(data)


_CUT_SHORT = {
    "JPEG": _jpeg_is_cut,
    "PNG": _png_is_cut,
    "GIF": _gif_is_cut,
    "WEBP": _webp_is_cut,
    "BMP": _bmp_is_cut,
    "TIFF": tiff_tags.is_cut_short,
}
