"""The look at the first images: at their sizes before any worker is there, then at what came."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.models.bundle import Bundle
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.pipeline import label
from cifar_ray.prediction.sources.folder import FolderListing
from cifar_ray.prediction.sources.folder_fetch import FolderFetcher
from cifar_ray.prediction.suitability import doubt_warning, unlike_training_images
from cifar_ray.prediction.verification.verify import verify
from cifar_ray.runs import ShardName
from tests.conftest import REPOSITORY
from tests.drawing import draw
from tests.hostile import hooked_path, hostile_png
from tests.unit.prediction.sources.forms import ALL
from tests.unit.prediction.test_labelling import StoppingEngine, parts, plan_of, run

MEMORY = 2**30
TWENTY = LabellingConfig(images_per_shard=20)
WHAT_TO_DO = ("guesses among airplane, automobile", "torchvision:resnet50", "cifar-ray train")
GIF_SCREEN = b"GIF89a" + b"\xff" * 4


def draw_large(folder: Path, kinds: tuple[str, ...]) -> None:
    folder.mkdir()
    for number, kind in enumerate(kinds):
        draw(random.Random(number), (500, 375), "RGB").save(folder / f"{number}.{kind}")


def warnings(folder: Path) -> tuple[str, ...]:
    entries = list(FolderListing(folder, ALL).entries(None))
    return unlike_training_images(entries, FolderFetcher(folder), Bundle.default().spec, MEMORY)


def test_sizes_of_every_format_are_told_and_what_is_broken_is_left_out(tmp_path: Path) -> None:
    for kinds in (("jpg", "png"), ("gif", "bmp", "webp", "tif")):
        folder = tmp_path / kinds[0]
        draw_large(folder, kinds)
        for name, data in (("empty", b""), ("text", b"no picture"), ("broken", GIF_SCREEN)):
            (folder / name).write_bytes(data)
        (told,) = warnings(folder)
        assert "about 500×375 pixels" in told
    assert not [p for p in psutil.Process().children() if "decode_child" in " ".join(p.cmdline())]


def test_a_file_that_crashes_a_decoder_does_not_crash_this_process(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    draw_large(folder, ("png", "gif"))
    (folder / "0.png").write_bytes(hostile_png((folder / "0.png").read_bytes(), b"crash"))
    code = f"""from pathlib import Path
from tests.unit.prediction.test_suitability import warnings
print(warnings(Path({str(folder)!r})))"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={"PYTHONPATH": f"{hooked_path()}:{REPOSITORY}", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
    )
    assert "about 500×375 pixels" in done.stdout, done.stderr


def test_images_that_the_model_doubts_are_told_at_once_and_kept_over_a_stop(tmp_path: Path) -> None:
    store, out = tmp_path / "noise", tmp_path / "out"
    store.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (45, 32, 32, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(store / f"{number:02}.png")
    assert run(store, tmp_path / "whole", config=TWENTY).ok == 45
    told: list[str | None] = []
    plan = plan_of(store, out, TWENTY)
    engine = LocalEngine(plan.store.uri, plan.source.reference, 1, 1.0)
    with pytest.raises(KeyboardInterrupt):
        label(plan, StoppingEngine(engine, 2), 1.0, lambda now: told.append(now.warning))
    warning = told[-1]
    assert warning is not None
    assert told[0] is None
    assert all(part in warning for part in ("% on average", *WHAT_TO_DO))
    told.clear()
    resumed = plan_of(store, out, TWENTY)
    label(resumed, engine, 1.0, lambda now: told.append(now.warning))
    assert set(told) == {warning}
    assert json.loads((out / "receipt.json").read_text())["warnings"] == [warning]
    assert "% on average" in (out / "report.html").read_text()
    assert not verify(plan.store, lambda rows: None).differences
    assert parts(out) == parts(tmp_path / "whole")
    # Of a few images an average says nothing.
    few = LabellingConfig(limit=19)
    assert run(store, tmp_path / "few", config=few).warnings == ()
    # What to do is said once, also where the sizes were told before.
    sized = plan.record.model_copy(update={"warnings": ("The first images are small.",)})
    short = doubt_warning(plan.store, ShardName(0, 0), sized, plan.bundle.spec)
    assert short is not None
    assert warning.startswith(f"{short} Its labels will be guesses")


def test_images_of_the_models_own_kind_are_not_warned_of(cifar_data: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    images = pq.read_table(cifar_data / "cifar10" / "train.parquet", columns=["image"]).slice(0, 60)
    for number, image in enumerate(images["image"].to_pylist()):
        (store / f"{number:02}.jpg").write_bytes(image)
    assert run(store, tmp_path / "out", config=TWENTY).warnings == ()
