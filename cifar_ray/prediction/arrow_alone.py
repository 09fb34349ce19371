"""Keeps pandas out of our own processes."""

import sys
from collections.abc import Sequence
from types import ModuleType

import pyarrow as pa


class _Absent:
    """Says that there is no pandas."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def keep_pandas_out() -> None:
    """Let Arrow look for pandas once, and find none.

    It looks when it first converts something, to tell a Series from other arrays, and imports all
    of pandas for it, which takes as long as all else that a worker imports. Who asks Arrow for a
    data frame afterwards still gets one. For processes of ours alone: after this, Arrow takes a
    Series for a plain array.
    """
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(absent)
