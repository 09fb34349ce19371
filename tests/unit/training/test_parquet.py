import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifar_ray.errors import InputError
from cifar_ray.training.data.sources import load


def png(red: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(data, "PNG")
    return data.getvalue()


def write(path: Path, labels: list, metadata: dict | None = None, struct: bool = False) -> None:
    images = [png(10 * number) for number in range(len(labels))]
    column = [{"bytes": image, "path": None} for image in images] if struct else images
    table = pa.table({"image": column, "label": labels, "other": [0] * len(labels)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_a_file_with_text_labels_names_its_classes(tmp_path: Path) -> None:
    write(tmp_path / "mine.parquet", ["dog", "cat", "dog"])
    data = load(str(tmp_path / "mine.parquet"), 8)
    assert data.name == "mine"
    assert data.train.label_names == ("cat", "dog")
    assert data.train.labels.tolist() == [1, 0, 1]
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 10, 20]
    assert data.test is None


def test_a_folder_of_hugging_face_files_has_its_names_and_its_test_images(tmp_path: Path) -> None:
    features = {"label": {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    write(tmp_path / "d" / "train-00000-of-00002.parquet", [0, 1], metadata, struct=True)
    write(tmp_path / "d" / "train-00001-of-00002.parquet", [1, 0], metadata, struct=True)
    write(tmp_path / "d" / "test-00000-of-00001.parquet", [2], metadata, struct=True)
    data = load(str(tmp_path / "d"), 8)
    assert data.train.label_names == ("ant", "bee", "cow")
    assert data.train.labels.tolist() == [0, 1, 1, 0]
    assert data.test is not None
    assert data.test.labels.tolist() == [2]


def test_numbers_without_names_are_names(tmp_path: Path) -> None:
    write(tmp_path / "mine.parquet", [2, 0])
    assert load(str(tmp_path / "mine.parquet"), 8).train.label_names == ("0", "1", "2")


@pytest.mark.parametrize("labels", [[1.5, 2.0], [None, 1], [-1, 0], ["cat", None]])
def test_labels_of_another_kind_are_told(tmp_path: Path, labels: list) -> None:
    write(tmp_path / "mine.parquet", labels)
    with pytest.raises(InputError, match="label"):
        load(str(tmp_path / "mine.parquet"), 8)


def test_other_columns_are_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": [b""], "label": [0]}), tmp_path / "mine.parquet")
    with pytest.raises(InputError, match="image and label are needed"):
        load(str(tmp_path / "mine.parquet"), 8)


def test_another_file_is_told_from_parquet(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK and so on")
    with pytest.raises(InputError, match=r"photos\.zip is no Parquet file"):
        load(str(tmp_path / "photos.zip"), 8)
