"""A bundle quantized with images that lie in a bucket."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cifar_ray.prediction.quantizing import Question, quantize_bundle
from tests.drawing import draw_folder
from tests.store.conftest import BUCKET
from tests.unit.models.bundles import make_bundle

NEEDED = ("openvino", "nncf")
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, NEEDED)), reason=f"needs the packages {' and '.join(NEEDED)}"
)


def test_ranges_and_labels_are_of_the_buckets_images(
    place: str, prefix: str, client: Any, tmp_path: Path
) -> None:
    draw_folder(tmp_path / "images", count=340)
    files = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    contents = {path.name: path.read_bytes() for path in files}
    contents |= {"again.jpg": files[0].read_bytes(), "text.png": b"no image"}
    for name, content in contents.items():
        client.put_object(Bucket=BUCKET, Key=f"{prefix}images/{name}", Body=content)
    model = make_bundle(tmp_path / "model")
    asked = Question(
        # Weights that nobody trained have near-ties, and what is asked of them here is little.
        *(str(model.path), f"{place}/images"),
        least_agreement=0.5,
        num_calibration=80,
        num_compared=400,
    )
    told: list[str] = []
    bundle, passed_over = quantize_bundle(
        asked, tmp_path / "out", lambda what, _: told.append(what)
    )
    made = bundle.spec.int8
    assert made is not None
    assert made.source == f"{place}/images"
    assert made.num_calibration_images == 80
    assert made.comparison.num_images == len(files) - 80
    assert passed_over == {"not_an_image": 1, "repeated": 1}
    assert told[0] == "measuring ranges"
