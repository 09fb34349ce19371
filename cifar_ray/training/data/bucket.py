"""DATA in a bucket: files and their classes, listed once, and read as they are decoded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cifar_ray.errors import InputError, printable
from cifar_ray.storage import Store, open_store


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in a bucket, for those who would else have a `Path`."""

    store: Store
    name: str
    written_at: float = 0.0
    """Seconds since 1970."""

    def __str__(self) -> str:
        """Return the file's uri."""
        return f"{self.store.uri}/{self.name}"

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the file for reading, seekable."""
        return self.store.open(self.name)

    def read_bytes(self) -> bytes:
        """Return the file's bytes."""
        return self.store.read(self.name)


File = Path | StoredFile


@dataclass(frozen=True, slots=True)
class TarMember:
    """An image where it lies in an archive."""

    file: File
    name: str
    offset: int
    size_bytes: int

    def __str__(self) -> str:
        """Return what a message calls it."""
        return f"{self.file}, {self.name}"

    def read_bytes(self) -> bytes:
        """Return its bytes."""
        with self.file.open("rb") as archive:
            return self.read_from(archive)

    def read_from(self, archive: BinaryIO) -> bytes:
        """Return its bytes from the archive, which is open."""
        archive.seek(self.offset)
        return archive.read(self.size_bytes)


def shards_in(uri: str, kinds: tuple[str, ...]) -> list[StoredFile]:
    """Return the file of one of these endings, or those directly in the place, in order."""
    if uri.endswith(kinds):
        folder, _, name = uri.rpartition("/")
        store = _store(folder)
        if not store.exists(name):
            raise _absent(uri)
        return [StoredFile(store, name)]
    store = _store(uri)
    return [
        StoredFile(store, name, written_at)
        for name, written_at in store.written("")
        if name.endswith(kinds)
    ]


def classes_in(uri: str) -> dict[str, list[StoredFile]]:
    """Return the files of each sub-folder, both in the order of their names."""
    store = _store(uri)
    files = {name for name, _ in store.written("")}
    folders = [name for name in store.names("") if name not in files and name[0] not in "._"]
    return {name: sorted(_files(store, name), key=str) for name in folders}


def _store(uri: str) -> Store:
    store = open_store(uri)
    store.check()
    if not store.names(""):
        raise _absent(uri)
    return store


def _absent(uri: str) -> InputError:
    return InputError(
        f"DATA {printable(uri)} is not there. Give `cifar10`, a folder or s3:// place with a "
        "sub-folder a class, Parquet with `image` and `label` columns, or WebDataset's .tar shards."
    )


def _files(store: Store, folder: str) -> Iterator[StoredFile]:
    written = dict(store.written(folder))
    for name in store.names(folder):
        if name[0] in "._":
            continue
        if name in written:
            yield StoredFile(store, f"{folder}/{name}", written[name])
        else:
            yield from _files(store, f"{folder}/{name}")
