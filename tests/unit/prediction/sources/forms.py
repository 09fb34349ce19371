"""One set of images in every form that a store can have, with the folder's keys in each."""

import csv
import json
import os
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.prediction.sources import Entry, Skipped, Source, find_source, open_source
from tests.drawing import draw_folder

FORMS = ("csv", "jsonl", "manifest", "tar", "zip", "parquet", "hugging-face")
ALL = LabellingConfig()


def draw_store(root: Path, count: int, names: Sequence[str], others: Sequence[str]) -> Path:
    """Draw images, some with odd names, and files of other kinds; return their folder."""
    for name, path in zip(names, draw_folder(root, count=count), strict=False):
        (root / name).write_bytes(path.read_bytes() + name.encode())
    for name in others:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"other")
    return root


def file_keys(folder: Path) -> list[str]:
    """Return the paths of all files below a folder, in the byte order of keys."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted((path.relative_to(folder).as_posix() for path in paths), key=os.fsencode)


def make_form(form: str, folder: Path, target: Path) -> Path:
    """Write what `folder` holds in another form; return the SOURCE to give (root: `folder`)."""
    keys = file_keys(folder)
    target.mkdir(parents=True, exist_ok=True)
    path = target / {"manifest": "m.parquet", "hugging-face": "h.parquet"}.get(form, f"s.{form}")
    if form == "csv":
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([["uri"], *([key] for key in keys)])
    elif form == "jsonl":
        path.write_text("".join(json.dumps({"uri": key}) + "\n" for key in keys))
    elif form == "manifest":
        pq.write_table(pa.table({"uri": keys}), path, row_group_size=37)
    elif form == "tar":
        with tarfile.open(path, "w") as tar:
            tar.add(folder, arcname=".")
    elif form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for number, key in enumerate(keys):
                method = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
                archive.write(folder / key, key, method)
    else:
        write_images(path, folder, keys, hugging_face=form == "hugging-face")
    return path


def write_images(
    path: Path, folder: Path, keys: list[str], *, hugging_face: bool = False, group: int = 29
) -> None:
    contents = [(folder / key).read_bytes() for key in keys]
    if hugging_face:
        images = [{"bytes": c, "path": k} for k, c in zip(keys, contents, strict=True)]
        table = pa.table({"image": images, "number": range(len(keys))})
    else:
        table = pa.table({"path": keys, "image": contents, "number": range(len(keys))})
    pq.write_table(table, path, row_group_size=group)


def open_form(
    source: Path | str,
    root: Path | str | None = None,
    config: LabellingConfig = ALL,
) -> Source:
    reference = find_source(str(source), None if root is None else str(root), config)
    return open_source(reference, config)


def listed(source: Source, after: str | None = None) -> list[Entry]:
    return [item for item in source.listing(0).entries(after) if isinstance(item, Entry)]


def kinds(source: Source) -> list[str]:
    return sorted(i.kind for i in source.listing(0).entries(None) if isinstance(i, Skipped))


def is_manifest(form: str) -> bool:
    return form in ("csv", "jsonl", "manifest")
