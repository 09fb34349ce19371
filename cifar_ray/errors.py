"""The error tree and the exit codes it stands for (0 complete, 1 unexpected, 130 interrupted)."""

import difflib
import errno
from collections.abc import Iterable

OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What an `OSError` of a full disk, or of a quota that is used up, has for its `errno`."""


class CifarRayError(Exception):
    """An error that the command line prints as its message alone, without a traceback."""

    exit_code = 1


class InputError(CifarRayError):
    """The user's input is wrong; the message says what, where, what is allowed, what to do."""

    exit_code = 2


class TooManyFailures(CifarRayError):
    """More images failed than `--max-failure-rate` allows."""

    exit_code = 3


class Unfinished(CifarRayError):
    """Shards are still open; the same command goes on."""

    exit_code = 4


class StoreUnavailable(Unfinished):
    """The store itself is at fault (gone, unplugged, refusing), so no image is to blame."""


class VerificationFailed(CifarRayError):
    """`verify` found a difference."""

    exit_code = 5


def of_exit_code(code: int, message: str) -> CifarRayError:
    """Return an error that another process has told by its exit code and its message."""
    kinds = {kind.exit_code: kind for kind in (InputError, Unfinished)}
    return kinds.get(code, CifarRayError)(message)


class ImageFault(Exception):
    """One image that gets a status instead of a label.

    `status` is one of the row schema's statuses; `error` is a fixed text of ours, free of
    addresses, times and library messages, so that a row is the same on every attempt.
    """

    def __init__(self, status: str, error: str) -> None:
        super().__init__(status, error)
        self.status = status
        self.error = error


def did_you_mean(name: str, allowed: Iterable[str], limit: int = 3) -> str:
    """Return `Did you mean a, b?`, or the full list when nothing is near."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=limit, cutoff=0.5)
    if near:
        return f"Did you mean {', '.join(near)}?"
    return f"Allowed: {', '.join(names)}."


def printable(text: str, keep: str = "") -> str:
    """Escape what could steer a terminal; file names are anybody's text. `keep` stays as it is."""
    return "".join(
        char
        if char.isprintable() or char in keep
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
