"""Files that kill or stall an actor's decoder: Ray restarts it, and care is taken of the shard."""

import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.prediction.care.marks import set_mark
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.prediction.pipeline import label
from cifar_ray.prediction.plan import Request, make_plan
from tests.cluster.conftest import REPOSITORY, environment, parts
from tests.drawing import draw_folder
from tests.hostile import hooked_path, hostile_png

NUM_GOOD = 300
IMAGES_PER_SHARD = 64
TIMEOUT_S = 5.0
ENOUGH_MEMORY = 12 * 2**30
CULPRIT = ("decode_failed", "decoding it crashes, does not end, or takes all memory")


@pytest.mark.slow
def test_the_culprits_fail_alone_and_the_bytes_are_those_of_care_on_the_local_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if psutil.virtual_memory().available < ENOUGH_MEMORY:
        pytest.skip("needs 12 GB of free memory")
    monkeypatch.setenv("PYTHONPATH", hooked_path())
    store, out = tmp_path / "store", tmp_path / "ray"
    images = draw_folder(store, NUM_GOOD)
    png = next(path for path in images if path.suffix == ".png").read_bytes()
    deeds = {"x-8gb.png": b"8gb", "y-crash.png": b"crash", "z-stall.png": b"stall"}
    for name, deed in deeds.items():
        (store / name).write_bytes(hostile_png(png, deed))
    command = [sys.executable, "-m", "cifar_ray", "predict", str(store), "--out", str(out)]
    command += ["--engine", "ray", "--workers", "1", "--decode-timeout", str(TIMEOUT_S)]
    command += ["--images-per-shard", str(IMAGES_PER_SHARD)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = {row["key"]: row for row in pq.read_table(out / "predictions").to_pylist()}
    assert {(rows[name]["status"], rows[name]["error"]) for name in deeds} == {CULPRIT}
    assert sum(row["status"] == "ok" for row in rows.values()) == NUM_GOOD
    assert parts(out) == with_care(store, tmp_path / "local")


def with_care(store: Path, out: Path) -> dict[str, bytes]:
    """Return what the local engine writes when every shard is done with care from the start."""
    config = LabellingConfig(images_per_shard=IMAGES_PER_SHARD, decode_timeout_s=TIMEOUT_S)
    plan = make_plan(Request(str(store), str(out), None, None, config, ExecutionRequest()))
    for shard in Manifest(plan.store, IMAGES_PER_SHARD).shards(0, plan.source.listing(0)):
        set_mark(plan.store, shard)
    engine = LocalEngine(plan.store.uri, plan.source.reference, 1, 10.0)
    label(plan, engine, 1.0, lambda progress: None)
    return parts(out)
