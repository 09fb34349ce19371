"""Files that hold images, as a store: read where they lie, once and in order, never unpacked.

A container given as SOURCE gives its members' own paths as keys. Of a folder or a pattern, each
container counts as a sub-folder of its name: `shard-000.tar/cat/1.jpg`. So equal names in two
containers stay two keys.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import quote, unquote_to_bytes

from cifar_ray.config.labelling import CarriedColumn, LabellingConfig, SourceReference
from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.sources.base import (
    Boundary,
    Entry,
    Fetcher,
    ListedItem,
    Skipped,
    encode_key,
    is_hidden,
    skipped_kind,
)
from cifar_ray.prediction.sources.blobs import (
    Blob,
    Blobs,
    Version,
    blobs_below,
    split_file,
    uri_below,
)

WHOLE_FOLDER = "**/*"
"""The pattern of a folder that was given without one."""
_NAME_LENGTH = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class Member:
    """One image within a container.

    `place` is what the format reads it by, `position` where its listing goes on behind it.
    """

    name: bytes
    size_bytes: int
    place: bytes
    position: int
    carried: tuple[object, ...] = ()


class ContainerReader(Protocol):
    """Reads members by their place; any number of threads may use one."""

    def read(self, container: Version, place: bytes, size_bytes: int) -> bytes:
        """Return a member's bytes; `ImageFault` or `StoreUnavailable`."""


class ContainerFormat(Protocol):
    """What a kind of container is: how members are listed, and how one is read."""

    extensions: tuple[str, ...]

    def members(
        self, file: BinaryIO, size_bytes: int, start: int | None, columns: tuple[CarriedColumn, ...]
    ) -> Iterator[Member | Skipped]:
        """Yield what lies behind `start` (a member's position), in the order as written.

        `size_bytes` is the file's. Raises `ContainerDamaged` where the container ends early or
        makes no sense.
        """

    def reader(self, blobs: Blobs) -> ContainerReader:
        """Return a reader, for one process."""


class ContainerDamaged(Exception):
    """A container cannot be listed to its end; the message says why."""


def plain_name(name: bytes) -> bytes:
    """Return a member's name without the `./` that `tar -c .` puts before each."""
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return name


@dataclass(frozen=True, slots=True)
class ContainerSource:
    """A container, or those of a folder."""

    reference: SourceReference
    config: LabellingConfig
    format: ContainerFormat

    @property
    def containers(self) -> "Containers":
        """Where the containers are."""
        return Containers(self.reference, self.format.extensions, self.config)

    def listing(self, range_number: int) -> "ContainerListing":
        """Return the listing; containers are one range."""
        return ContainerListing(self.containers, self.format)

    def fetcher(self) -> Fetcher:
        """Return a reader."""
        return ContainerFetcher(self.format.reader(self.containers.blobs()))

    def uri(self, entry: Entry) -> str:
        """Return `file://…/container#member`, or `s3://…`."""
        name, _ = split_locator(entry)
        member = entry.key[len(self.containers.prefix(name)) :]
        return f"{uri_below(self.containers.root, name)}#{quote(member)}"


@dataclass(frozen=True, slots=True)
class Containers:
    """The containers of a source, in the byte order of their names below `root`."""

    reference: SourceReference
    extensions: tuple[str, ...]
    config: LabellingConfig

    @property
    def root(self) -> str:
        """The folder, or prefix of a bucket, below which they lie."""
        uri = self.reference.uri
        return split_file(uri)[0] if self.reference.pattern is None else uri

    def blobs(self) -> Blobs:
        """Return what is below the root; nothing is opened yet."""
        return blobs_below(self.root)

    def prefix(self, name: bytes) -> str:
        """Return what stands before the keys of a container's members."""
        return "" if self.reference.pattern is None else encode_key(name).decode() + "/"

    def names(self) -> Iterator[bytes | Skipped]:
        """Yield the containers, and what lies beside them in a folder.

        Memory grows with the number of containers of a pattern; a folder is walked.
        """
        pattern = self.reference.pattern
        if pattern is None:
            yield split_file(self.reference.uri)[1]
        elif pattern == WHOLE_FOLDER:
            yield from self._walk()
        else:
            root = Path(self.root)
            found = (path for path in root.glob(pattern) if path.is_file())
            yield from sorted(os.fsencode(path.relative_to(root)) for path in found)

    def _walk(self) -> Iterator[bytes | Skipped]:
        for item in self.blobs().everything(self.config).entries(None):
            if not isinstance(item, Entry):
                if isinstance(item, Skipped):
                    yield item
                continue
            hidden = is_hidden(item.key)
            extension = os.path.splitext(item.key)[1].lower()
            if hidden or extension not in self.extensions:
                yield Skipped("(hidden)" if hidden else extension or "(no extension)")
            else:
                yield item.locator if item.locator is not None else item.key.encode()


class ContainerListing:
    """The members of all containers, one container after another."""

    def __init__(self, containers: Containers, format_: ContainerFormat) -> None:
        """Nothing is opened yet."""
        self.containers = containers
        self.format = format_
        self.blobs = containers.blobs()

    def entries(self, after: str | None) -> Iterator[ListedItem]:
        """Yield members, with a boundary behind each container.

        Raises `InputError` for a container that cannot be listed to its end, behind what can.
        """
        first, start = _parse_cursor(after)
        for item in self.containers.names():
            if isinstance(item, Skipped):
                if first is None:
                    yield item
                continue
            if first is not None and item != first:
                continue
            yield from self._members(item, start)
            yield Boundary()
            first = start = None
        if first is not None:
            raise InputError(
                f"The container {printable(os.fsdecode(first))} is no longer in SOURCE "
                f"{printable(self.containers.root)}, and the listing stopped in it. "
                "Bring it back, or start over with --fresh."
            )

    def _members(self, name: bytes, start: int | None) -> Iterator[Entry | Skipped]:
        blob = self.blobs.look(name)
        prefix = self.containers.prefix(name)
        columns = self.containers.reference.carried
        with self.blobs.open(name) as file:
            try:
                for member in self.format.members(file, blob.size_bytes, start, columns):
                    yield (
                        member if isinstance(member, Skipped) else self._item(member, blob, prefix)
                    )
            except ContainerDamaged as error:
                path = printable(self.blobs.where(name))
                raise InputError(
                    f"The container {path} cannot be read to its end: {error}. "
                    "Bring a whole copy, or leave it out of SOURCE."
                ) from error

    def _item(self, member: Member, blob: Blob, prefix: str) -> Entry | Skipped:
        key = prefix + encode_key(member.name).decode()
        skipped = skipped_kind(key, self.containers.config)
        if skipped is not None:
            return Skipped(skipped)
        return Entry(
            key=key,
            version=blob.version,
            size_bytes=member.size_bytes,
            locator=_NAME_LENGTH.pack(len(blob.name)) + blob.name + member.place,
            position=f"{member.position}:{quote(blob.name)}",
            carried=member.carried,
        )


def _parse_cursor(cursor: str | None) -> tuple[bytes | None, int | None]:
    """Return the container in which a listing goes on, and the position in it."""
    if cursor is None:
        return None, None
    position, _, name = cursor.partition(":")
    return unquote_to_bytes(name), int(position)


def split_locator(entry: Entry) -> tuple[bytes, bytes]:
    """Return the container's name, and the member's place in it."""
    assert entry.locator is not None, "every member has one"
    (length,) = _NAME_LENGTH.unpack_from(entry.locator)
    start = _NAME_LENGTH.size
    return entry.locator[start : start + length], entry.locator[start + length :]


@dataclass(frozen=True, slots=True)
class ContainerFetcher:
    """Reads members of containers. Files are read ahead by the system, objects by `S3Blobs`."""

    reader: ContainerReader

    @property
    def parallel_reads(self) -> int:
        """One read at a time."""
        return 1

    def fetch(self, entry: Entry) -> bytes:
        """Return a member's bytes; `ImageFault` with the row's status, or `StoreUnavailable`."""
        name, place = split_locator(entry)
        return self.reader.read(Version(name, entry.version), place, entry.size_bytes)
