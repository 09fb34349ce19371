"""Images of a bucket that an S3 Inventory lists, read from a real server."""

import gzip
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest

from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import ImageFault
from cifar_ray.prediction.sources import Entry, find_source, open_source
from tests.store.conftest import BUCKET


def write_inventory(folder: Path, objects: list[dict[str, Any]]) -> Path:
    lines = [f'"{BUCKET}","{quote_plus(o["Key"])}","{o["Size"]}",{o["ETag"]}\n' for o in objects]
    (folder / "data.csv.gz").write_bytes(gzip.compress("".join(lines).encode()))
    manifest = {
        "sourceBucket": BUCKET,
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, ETag",
        "files": [{"key": "somewhere/data.csv.gz"}],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder / "manifest.json"


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_what_an_inventory_lists_is_read_from_its_bucket(
    where: str, prefix: str, place: str, client: Any, tmp_path: Path
) -> None:
    for name in ("a b+c.jpg", "\u00fc.jpg", "gone.jpg", "other.jpg"):
        client.put_object(Bucket=BUCKET, Key=prefix + name, Body=name.encode())
    objects = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    path = write_inventory(tmp_path, objects)
    source_text = str(path)
    if where == "bucket":
        # As S3 lays it out.
        for name, file in (
            ("inv/day/manifest.json", path),
            ("inv/data/data.csv.gz", tmp_path / "data.csv.gz"),
        ):
            client.put_object(Bucket=BUCKET, Key=prefix + name, Body=file.read_bytes())
        source_text = f"{place}/inv/day/manifest.json"
    reference = find_source(source_text)
    client.delete_object(Bucket=BUCKET, Key=prefix + "gone.jpg")
    client.put_object(Bucket=BUCKET, Key=prefix + "other.jpg", Body=b"changed")
    source = open_source(reference, LabellingConfig())
    fetcher = source.fetcher()
    found: dict[str, bytes | str] = {}
    for entry in source.listing(0).entries(None):
        assert isinstance(entry, Entry)
        try:
            found[entry.key.removeprefix(prefix)] = fetcher.fetch(entry)
        except ImageFault as fault:
            found[entry.key.removeprefix(prefix)] = fault.status
    assert found == {
        "a b+c.jpg": b"a b+c.jpg",
        "\u00fc.jpg": "\u00fc.jpg".encode(),
        "gone.jpg": "not_found",
        "other.jpg": "changed",
    }
