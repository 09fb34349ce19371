"""Lists for review: the rows that the model is not sure of, as CSV or as Label Studio tasks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from cifar_ray.prediction.export.files import new_file
from cifar_ray.prediction.export.spreadsheet import OnRows, cell, csv_file
from cifar_ray.prediction.reading import read_rows, row_dicts
from cifar_ray.prediction.row import OK
from cifar_ray.storage import Store

ReviewFormat = Literal["csv", "label-studio"]
COLUMNS = ("key", "uri", "status", "label", "confidence", "top_labels", "top_scores", "model")
HEADER = ("key", "label", "score", "alternatives", "reviewed_label", "uri")
LOCAL_FILES = "/data/local-files/?d="
FROM_NAME, TO_NAME = "label", "image"
LABELLING_CONFIG = (
    f'<View><Image name="{TO_NAME}" value="$image"/>'
    f'<Choices name="{FROM_NAME}" toName="{TO_NAME}">…a Choice for each label…</Choices></View>'
)
"""What a Label Studio project for these tasks is set up with."""


def export_review(
    store: Store, path: Path, below: float, format_: ReviewFormat, on_rows: OnRows
) -> int:
    """Write the labelled rows whose best score lies below a limit; return how many.

    The score is the confidence, or where the model is not calibrated the best of its scores.
    """
    rows = _doubtful(store, below, on_rows)
    return _write_csv(store, path, rows) if format_ == "csv" else _write_tasks(store, path, rows)


def _doubtful(store: Store, below: float, on_rows: OnRows) -> Iterator[dict[str, Any]]:
    for batch in read_rows(store, COLUMNS):
        for row in row_dicts(batch):
            if row["status"] == OK and _score(row) < below:
                yield row
        on_rows(len(batch))


def _score(row: dict[str, Any]) -> float:
    score: float | None = row["confidence"]
    return score if score is not None else float(row["top_scores"][0])


def _write_csv(store: Store, path: Path, rows: Iterator[dict[str, Any]]) -> int:
    number = 0
    with csv_file(path, store) as write:
        write(HEADER)
        for row in rows:
            others = row["top_labels"][1:]
            cells = (row["key"], row["label"], _score(row), others, None, row["uri"])
            write([cell(value) for value in cells])
            number += 1
    return number


def _write_tasks(store: Store, path: Path, rows: Iterator[dict[str, Any]]) -> int:
    """Write a JSON list, a task a line."""
    number = 0
    with new_file(path, store) as unfinished, open(unfinished, "w", encoding="utf-8") as out:
        out.write("[")
        for row in rows:
            out.write(",\n" if number else "\n")
            out.write(json.dumps(label_studio_task(row), ensure_ascii=False))
            number += 1
        out.write("\n]\n")
    return number


def label_studio_task(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as a task with a prediction (labelstud.io/guide/predictions).

    A file of this machine is named as Label Studio serves it when SOURCE is its
    LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT; anything else by its uri.
    """
    uri = row["uri"]
    image = LOCAL_FILES + quote(row["key"]) if uri.startswith("file://") else uri
    choice = {
        "from_name": FROM_NAME,
        "to_name": TO_NAME,
        "type": "choices",
        "value": {"choices": [row["label"]]},
    }
    prediction = {"model_version": row["model"], "score": _score(row), "result": [choice]}
    return {"data": {"image": image, "key": row["key"], "uri": uri}, "predictions": [prediction]}
