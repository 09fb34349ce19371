"""Label names: what a class is called, in the order of the network's outputs."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cifar_ray.errors import InputError

CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def check_labels(labels: Sequence[object], where: str) -> list[str]:
    """Return the labels as strings; `InputError` names `where` and every fault.

    Labels are at least two, not empty, each once, free of control characters and of blanks
    around them.
    """
    faults = []
    if len(labels) < 2:
        faults.append(f"{len(labels)} labels, at least 2 are needed")
    names = [label for label in labels if isinstance(label, str)]
    if len(names) < len(labels):
        faults.append(f"{len(labels) - len(names)} labels are not strings")
    bad = [name for name in names if not name.isprintable() or name != name.strip() or not name]
    if bad:
        faults.append(f"empty, with blanks around or with control characters: {_shown(bad)}")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        faults.append(f"more than once: {_shown(repeated)}")
    if faults:
        raise InputError(f"The labels in {where} do not serve: {'; '.join(faults)}.")
    return names


def read_labels(path: Path) -> list[str]:
    """Read labels from a `.txt` file (one a line) or a `.json` file (a list of strings)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read labels from {path}: {error}.") from error
    if path.suffix == ".txt":
        return check_labels(text.rstrip().splitlines(), str(path))
    if path.suffix != ".json":
        raise InputError(f"Labels are a .txt file (a line each) or a .json list, not {path.name}.")
    try:
        labels = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(labels, list):
        raise InputError(f"{path} must hold a JSON list of label names.")
    return check_labels(labels, str(path))


def _shown(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more
