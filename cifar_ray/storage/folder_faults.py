"""What the system says of a folder, as errors of ours."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cifar_ray.errors import OUT_OF_SPACE, InputError, Unfinished, printable

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


@contextmanager
def folder_faults(folder: Path) -> Iterator[None]:
    """Raise `Unfinished` where the disk is full, `InputError` where the folder is not for us."""
    try:
        with full_disk(folder):
            yield
    except OSError as error:
        if error.errno in _REFUSED:
            raise InputError(
                f"Cannot use {printable(str(folder))}: {os.strerror(error.errno)}. Give a place "
                "that you may use, or see to it that you may use this one."
            ) from error
        raise


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Raise `Unfinished` where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in OUT_OF_SPACE:
            raise
        raise Unfinished(
            f"No space left on the disk of {printable(str(folder))}. What is written is whole; "
            "free some space and give the same command again to go on."
        ) from error
