"""Zip archives: members where they lie in the file.

The directory of an archive is held in memory while it is listed, some 600 bytes a member: it is the
one source whose listing takes memory that grows with it.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from cifar_ray.config.labelling import CarriedColumn
from cifar_ray.errors import ImageFault
from cifar_ray.prediction.sources.base import MAX_IMAGE_BYTES, Skipped
from cifar_ray.prediction.sources.blobs import Blobs, Version
from cifar_ray.prediction.sources.containers import ContainerDamaged, Member, plain_name

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature; lengths of name and extra field
_PLACE = struct.Struct(">QQIHH")
_UTF8, _ENCRYPTED = 0x800, 0x1
_DAMAGE = (
    zipfile.BadZipFile,
    struct.error,
    ValueError,  # with UnicodeDecodeError
    NotImplementedError,
    OverflowError,
    EOFError,
)
"""What the library lets through for an archive that is not as it should be."""


class ZipFormat:
    """Zip archives, Zip64 among them."""

    extensions: tuple[str, ...] = (".zip",)

    def members(
        self,
        file: BinaryIO,
        size_bytes: int,
        start: int | None,
        columns: tuple[CarriedColumn, ...],
    ) -> Iterator[Member | Skipped]:
        """Yield members in the order of the directory; a position is the number of the next."""
        try:
            infos = zipfile.ZipFile(file).infolist()
        except _DAMAGE as error:
            # The directory is a zip's last part, so that one cut anywhere has none.
            raise ContainerDamaged("it has no directory, so it was cut or is no zip") from error
        for number in range(start or 0, len(infos)):
            item = _item(infos[number], number + 1)
            if item is not None:
                yield item

    def reader(self, blobs: Blobs) -> "ZipReader":
        """Return a reader."""
        return ZipReader(blobs)


def _item(info: zipfile.ZipInfo, position: int) -> Member | Skipped | None:
    if info.is_dir():
        return None
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return Skipped("(link)")
    if kind not in (0, stat.S_IFREG):
        return Skipped("(device, pipe or socket)")
    place = _PLACE.pack(
        info.header_offset, info.compress_size, info.CRC, info.compress_type, info.flag_bits
    )
    return Member(plain_name(_raw_name(info)), info.file_size, place, position)


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    """Return a name as it is stored; without a mark the library takes every byte for cp437."""
    if not info.flag_bits & _UTF8:
        with suppress(UnicodeEncodeError):  # a name from a field of its own, which is UTF-8
            return info.filename.encode("cp437")
    return info.filename.encode()


@dataclass(frozen=True, slots=True)
class ZipReader:
    """Reads stored and deflated members by their offset, and checks their sums."""

    blobs: Blobs

    def read(self, container: Version, place: bytes, size_bytes: int) -> bytes:
        """Return a member's bytes, of which no more are unpacked than the directory promises."""
        header, packed_bytes, checksum, method, flags = _PLACE.unpack(place)
        if max(size_bytes, packed_bytes) > MAX_IMAGE_BYTES:
            raise ImageFault("too_large", f"more than {MAX_IMAGE_BYTES} bytes")
        if flags & _ENCRYPTED:
            raise ImageFault("unsupported", "encrypted within its zip")
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ImageFault("unsupported", "packed within its zip by another way than deflate")
        data = self._packed(container, header, packed_bytes)
        if method == zipfile.ZIP_DEFLATED:
            data = _inflate(data, size_bytes)
        if len(data) != size_bytes or zlib.crc32(data) != checksum:
            raise _damaged()
        return data

    def _packed(self, container: Version, header: int, packed_bytes: int) -> bytes:
        head = self.blobs.read_range(container, header, _LOCAL_HEADER.size)
        if len(head) < _LOCAL_HEADER.size:
            raise _damaged()
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(head)
        if signature != b"PK\3\4":
            raise _damaged()
        start = header + _LOCAL_HEADER.size + name_bytes + extra_bytes
        return self.blobs.read_range(container, start, packed_bytes)


def _inflate(data: bytes, size_bytes: int) -> bytes:
    """Unpack; one byte more than promised is enough to tell a bomb."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size_bytes + 1)
    except zlib.error:
        raise _damaged() from None


def _damaged() -> ImageFault:
    return ImageFault("fetch_failed", "damaged within its zip")
