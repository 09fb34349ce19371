"""A benchmark's table, for a terminal and for `results/`."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

Line = tuple[str, ...]


def show(heading: str, titles: Line, lines: Sequence[Line], markdown: Path | None = None) -> None:
    """Print a table under its heading, and write both to a file if one is named."""
    table = Table(*titles)
    for line in lines:
        table.add_row(*line)
    console = Console(width=100)
    console.print(heading)
    console.print(table)
    if markdown is not None:
        rows = [titles, ("---",) * len(titles), *lines]
        text = "".join(f"| {' | '.join(row)} |\n" for row in rows)
        markdown.write_text(f"{heading}\n\n{text}", encoding="utf-8")
