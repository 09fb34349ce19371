"""What the engine asks of the place that a run is written to."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

TEMPORARY = "_tmp"
"""Folder of unfinished files, within the place."""


class Store(Protocol):
    """A place for the files of a run. Names are relative and use `/`."""

    @property
    def uri(self) -> str:
        """The place, as `open_store` takes it."""

    def check(self) -> None:
        """Raise `InputError` if this is no place for a run, or cannot be reached."""

    def read(self, name: str) -> bytes:
        """Return a file's bytes; `FileNotFoundError` if there is none."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading, seekable; `FileNotFoundError` if there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically, in place of an older one."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a file atomically unless one exists; tell whether it was written."""

    def note(self, name: str, data: bytes) -> bool:
        """Create a file of a few bytes as `create` does, but one that a power cut may undo."""

    def exists(self, name: str) -> bool:
        """Tell whether a file exists."""

    def names(self, folder: str, prefix: str = "") -> list[str]:
        """Return the names directly in `folder` that begin with `prefix`, in order, or none."""

    def written(self, folder: str, prefix: str = "") -> list[tuple[str, float]]:
        """Return what `names` does, each with the time at which it was written (Unix seconds)."""

    def delete(self, name: str) -> None:
        """Delete a file or a folder with all in it; nothing happens if there is none."""

    def move(self, name: str, to: str) -> None:
        """Move a file, in place of an older one; `FileNotFoundError` if there is none.

        Where a store cannot do that in one step, there are two files for a moment, never none.
        """

    def staged(self, name: str) -> AbstractContextManager[Path]:
        """Give a local path to write to; at the end of the block it becomes `name`, atomically."""

    def sweep(self) -> str | None:
        """Remove what writes of a killed process have left unfinished; only its one user may.

        Returns what to tell the user of what may be left; None if nothing is.
        """
