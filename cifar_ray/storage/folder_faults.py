"""What the system says of a folder, as errors of ours."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cifar_ray.errors import InputError, Unfinished, printable

_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


@contextmanager
def folder_faults(folder: Path) -> Iterator[None]:
    """Raise `Unfinished` where the disk is full, `InputError` where the folder is not for us."""
    try:
        yield
    except OSError as error:
        place = printable(str(folder))
        if error.errno in _OUT_OF_SPACE:
            raise Unfinished(
                f"No space left on the disk of {place}. What is written is whole; "
                "free some space and give the same command again to go on."
            ) from error
        if error.errno in _REFUSED:
            raise InputError(
                f"Cannot use {place}: {os.strerror(error.errno)}. Give a place that you may use, "
                "or see to it that you may use this one."
            ) from error
        raise
