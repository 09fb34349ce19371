"""Folders by label: every labelled image under the name of its label, linked or copied."""

import errno
import os
import shutil
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_ray.errors import InputError, printable
from cifar_ray.prediction.export.files import refuse_inside
from cifar_ray.prediction.export.names import FolderNames, safe_name, with_digest
from cifar_ray.prediction.export.spreadsheet import OnRows
from cifar_ray.prediction.reading import read_rows, row_dicts, run_record
from cifar_ray.prediction.row import OK
from cifar_ray.storage import Store
from cifar_ray.storage.folder_faults import folder_faults

COLUMNS = ("key", "uri", "version", "status", "label")
FILE_SCHEME = "file://"
NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP})
"""Another disk, a file of somebody else's, too many links, a file system without links."""
Put = Callable[[bytes, Path], None]


@dataclass(slots=True)
class Sorted:
    """What became of the rows."""

    exported: int = 0
    without_label: int = 0
    changed: int = 0
    """Gone, or no longer the file that was labelled: no label is given to another file."""


def export_folders(store: Store, folder: Path, copy: bool, on_rows: OnRows) -> Sorted:
    """Fill a new or empty folder with a sub-folder a label.

    A file keeps its name; a name that is taken gets some digits of its key's digest. Raises
    `InputError` for a source whose images are not files of this machine.
    """
    record = run_record(store)
    if record.source.kind not in ("folder", "manifest") or record.source.in_bucket:
        raise InputError(
            "--folders takes files of this machine, and the images of SOURCE "
            f"{printable(record.source.uri)} are none. --csv lists them by uri, with their labels."
        )
    refuse_inside(folder, store)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{printable(str(folder))} is not an empty folder. Give a new one.")
    found, names = Sorted(), FolderNames()
    put = copy_file if copy else link_file
    for batch in read_rows(store, COLUMNS):
        for row in row_dicts(batch):
            _export(row, folder, names, put, found)
        on_rows(len(batch))
    return found


def _export(row: dict[str, Any], folder: Path, names: FolderNames, put: Put, found: Sorted) -> None:
    if row["status"] != OK:
        found.without_label += 1
        return
    path = local_path(row["uri"])
    if not _is_as_labelled(path, row["version"]):
        found.changed += 1
        return
    below = folder / names.of(row["label"])
    with folder_faults(folder):
        below.mkdir(parents=True, exist_ok=True)
    _put_under_free_name(path, below, row["key"], put)
    found.exported += 1


def _put_under_free_name(path: bytes, folder: Path, key: str, put: Put) -> None:
    name = safe_name(key.rpartition("/")[2])
    try:
        put(path, folder / name)
    except FileExistsError:
        # Two keys of one name, such as a/1.jpg and b/1.jpg.
        with suppress(FileExistsError):  # the same key, listed more than once
            put(path, folder / with_digest(name, key))


def local_path(uri: str) -> bytes:
    """Return the file that a `file://` uri names; `InputError` for any other uri."""
    if not uri.startswith(FILE_SCHEME) or "#" in uri:
        raise InputError(
            f"--folders takes files of this machine, and {printable(uri)} is none. "
            "--csv lists images by uri, with their labels."
        )
    return urllib.parse.unquote_to_bytes(uri.removeprefix(FILE_SCHEME))


def _is_as_labelled(path: bytes, version: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return version == f"{status.st_mtime_ns}-{status.st_size}"


def link_file(path: bytes, target: Path) -> None:
    """Make a hard link, else a symbolic one, else a copy; `FileExistsError` for a taken name."""
    # A link to a link would be relative to another folder.
    file = os.path.realpath(path)
    link: Callable[[bytes, Path], None]
    for link in (os.link, os.symlink):
        try:
            link(file, target)
            return
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
    copy_file(path, target)


def copy_file(path: bytes, target: Path) -> None:
    """Copy a file with its times; `FileExistsError` for a taken name."""
    target.touch(exist_ok=False)
    try:
        shutil.copy2(os.fsdecode(path), target)
    except BaseException:
        target.unlink()
        raise
