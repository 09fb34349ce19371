"""Tar archives, with WebDataset's shards among them: members where they lie in the file.

After POSIX.1-2001 (`pax`) and GNU tar, read header by header: the library's reader keeps every
header in memory, takes an archive that was cut between two members for a whole one, and cannot go
on from the middle.
"""

import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from cifar_ray.config.labelling import CarriedColumn
from cifar_ray.errors import ImageFault
from cifar_ray.prediction.sources.base import MAX_IMAGE_BYTES, Skipped
from cifar_ray.prediction.sources.blobs import Blobs, Version
from cifar_ray.prediction.sources.containers import ContainerDamaged, Member, plain_name

MAX_NAME_BYTES = 2**20
"""Of an extended header, which holds a name and little else."""
MAX_PADDING_BLOCKS = 2048
"""Zeros behind the end mark, beyond which no second archive is looked for."""
_ZEROS = bytes(tarfile.BLOCKSIZE)
_PLACE = struct.Struct(">Q")
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)


class TarFormat:
    """Plain tar archives; compressed ones can only be read from their beginning."""

    extensions: tuple[str, ...] = (".tar",)

    def members(
        self,
        file: BinaryIO,
        size_bytes: int,
        start: int | None,
        columns: tuple[CarriedColumn, ...],
    ) -> Iterator[Member | Skipped]:
        """Yield members; a position is the offset of the header that follows."""
        yield from _Walk(file, size_bytes, start or 0).members()

    def reader(self, blobs: Blobs) -> "TarReader":
        """Return a reader."""
        return TarReader(blobs)


@dataclass(frozen=True, slots=True)
class TarReader:
    """Reads members by their offset."""

    blobs: Blobs

    def read(self, container: Version, place: bytes, size_bytes: int) -> bytes:
        """Return a member's bytes."""
        if size_bytes > MAX_IMAGE_BYTES:
            raise ImageFault("too_large", f"more than {MAX_IMAGE_BYTES} bytes")
        (offset,) = _PLACE.unpack(place)
        return self.blobs.read_range(container, offset, size_bytes)


@dataclass(slots=True)
class _Walk:
    """A walk from header to header. `long_name` and `pax` are for the member that follows."""

    file: BinaryIO
    size_bytes: int
    at: int
    long_name: bytes | None = None
    pax: dict[bytes, bytes] | None = None

    def members(self) -> Iterator[Member | Skipped]:
        while (header := self._header()) is not None:
            data = self.at + tarfile.BLOCKSIZE
            if header.type in (_LONG_NAME, _LONG_LINK, tarfile.XGLTYPE, *_PAX):
                self._extension(header, data)
                continue
            size = int((self.pax or {}).get(b"size", header.size))
            name = (self.pax or {}).get(b"path") or self.long_name
            if name is None:
                name = header.name.encode("utf-8", "surrogateescape")
            sparse = header.type == tarfile.GNUTYPE_SPARSE or self._sparse_by_pax()
            if header.type == tarfile.GNUTYPE_SPARSE:
                data = self._behind_sparse_headers(data)
            self.long_name = self.pax = None
            holds_data = header.type not in (*_LINKS, *_DEVICES, tarfile.DIRTYPE)
            self.at = _next_header(data, size if holds_data else 0)
            if data + (size if holds_data else 0) > self.size_bytes:
                raise ContainerDamaged(f"it ends within a member, at byte {self.size_bytes:,}")
            item = self._item(header, name, data, size, sparse)
            if item is not None:
                yield item

    def _item(
        self, header: tarfile.TarInfo, name: bytes, data: int, size: int, sparse: bool
    ) -> Member | Skipped | None:
        """Return what a header stands for; folders are not counted, as nowhere."""
        if header.type == tarfile.DIRTYPE or name.endswith(b"/"):
            return None
        if header.type in _LINKS:
            return Skipped("(link)")
        if header.type in _DEVICES:
            return Skipped("(device, pipe or socket)")
        if sparse:
            return Skipped("(sparse file)")
        return Member(plain_name(name), size, _PLACE.pack(data), self.at)

    def _header(self) -> tarfile.TarInfo | None:
        """Return the header at `at`; None at the end of the archive."""
        padding = 0
        while True:
            block = self._read(self.at, tarfile.BLOCKSIZE)
            if block == _ZEROS and padding < MAX_PADDING_BLOCKS:
                # What follows the end mark may be another archive, appended with `cat`.
                padding += 1
                self.at += tarfile.BLOCKSIZE
                continue
            if padding and (not block or block == _ZEROS):
                return None
            if len(block) < tarfile.BLOCKSIZE:
                raise ContainerDamaged("it ends before its end mark")
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise ContainerDamaged(f"no header at byte {self.at:,}") from error
            if header.size < 0:
                raise ContainerDamaged(f"a member of negative size at byte {self.at:,}")
            return header

    def _extension(self, header: tarfile.TarInfo, data: int) -> None:
        if header.size > MAX_NAME_BYTES:
            raise ContainerDamaged(f"an extended header of {header.size:,} bytes")
        payload = self._read(data, header.size)
        if len(payload) < header.size:
            raise ContainerDamaged("it ends within an extended header")
        if header.type == _LONG_NAME:
            self.long_name = payload.split(b"\0")[0]
        elif header.type in _PAX:
            self.pax = _pax_records(payload)
        self.at = _next_header(data, header.size)

    def _sparse_by_pax(self) -> bool:
        return any(name.startswith(b"GNU.sparse.") for name in self.pax or ())

    def _behind_sparse_headers(self, data: int) -> int:
        """Return where the data begin: GNU's old form continues its map in further blocks."""
        more = self._read(data - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)[482:483]
        while more not in (b"", b"\0"):
            more = self._read(data, tarfile.BLOCKSIZE)[504:505]
            data += tarfile.BLOCKSIZE
        return data

    def _read(self, offset: int, length: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(length)


def _next_header(data: int, size: int) -> int:
    return data + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _pax_records(payload: bytes) -> dict[bytes, bytes]:
    """Parse `LENGTH KEY=VALUE\\n` records (POSIX.1-2001, pax, extended header)."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(payload) and payload[at : at + 1] != b"\0":
        digits, space, _ = payload[at : at + 20].partition(b" ")
        if not space or not digits.isdigit() or int(digits) <= len(digits) + 1:
            raise ContainerDamaged("an extended header that makes no sense")
        record = payload[at + len(digits) + 1 : at + int(digits)]
        name, equals, value = record.rstrip(b"\n").partition(b"=")
        if not equals or (name == b"size" and not value.isdigit()):
            raise ContainerDamaged("an extended header that makes no sense")
        records[name] = value
        at += int(digits)
    return records
