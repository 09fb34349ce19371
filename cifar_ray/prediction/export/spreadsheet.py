"""CSV for people: Excel shows its umlauts, and no file's name becomes a formula in it."""

import csv
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cifar_ray.errors import printable
from cifar_ray.prediction.export.files import new_file
from cifar_ray.prediction.reading import read_rows, row_dicts
from cifar_ray.storage import Store

OnRows = Callable[[int], None]
WriteRow = Callable[[Sequence[object]], object]

ENCODING = "utf-8-sig"
"""With the mark by which Excel knows UTF-8; other readers of UTF-8 skip it."""
FORMULA = ("=", "+", "-", "@")
"""What a cell begins with that a spreadsheet computes, in full width too (OWASP, CSV Injection)."""
SEPARATOR = "; "

COLUMNS = (
    *("key", "status", "label", "confidence", "top_labels", "top_scores", "error"),
    *("width", "height", "size_bytes", "sha256", "uri", "version", "shard", "model"),
)


def export_csv(store: Store, path: Path, on_rows: OnRows) -> int:
    """Write every row that a run has; return how many. `InputError` if the file exists."""
    number = 0
    with csv_file(path, store) as write:
        write(COLUMNS)
        for batch in read_rows(store, COLUMNS):
            for row in row_dicts(batch):
                write([cell(row[name]) for name in COLUMNS])
            number += len(batch)
            on_rows(len(batch))
    return number


@contextmanager
def csv_file(path: Path, store: Store) -> Iterator[WriteRow]:
    """Give a function that writes a row; the file appears at the end of the block."""
    with (
        new_file(path, store) as unfinished,
        open(unfinished, "w", encoding=ENCODING, newline="") as out,
    ):
        yield csv.writer(out).writerow


def cell(value: Any) -> str:
    """Return what stands in a cell: numbers short, lists in one cell, text that does nothing."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return text_cell(SEPARATOR.join(_item(item) for item in value))
    return text_cell(str(value))


def text_cell(text: str) -> str:
    """Return text without control characters, with `'` before what would be a formula."""
    safe = printable(text)
    first = unicodedata.normalize("NFKC", safe.lstrip()[:1])
    return f"'{safe}" if first in FORMULA else safe


def _item(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
