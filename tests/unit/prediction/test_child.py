"""Processes of ours find their modules where the command does, whatever lies around them."""

import subprocess
import sys
from pathlib import Path

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.prediction.care.marks import set_mark
from cifar_ray.prediction.plan import Request, make_plan
from cifar_ray.runs import ShardName
from tests.drawing import draw_folder


def test_code_among_the_images_is_not_run(tmp_path: Path) -> None:
    store, out, ran = tmp_path / "store", tmp_path / "out", tmp_path / "ran"
    draw_folder(store, count=3)
    for module in ("numpy", "psutil", "PIL"):
        (store / f"{module}.py").write_text(f"open({str(ran)!r}, 'w')\nraise SystemExit")
    plan = make_plan(
        Request(str(store), str(out), None, None, LabellingConfig(), ExecutionRequest())
    )
    # So that the shard is done with care, in a child of its worker.
    set_mark(plan.store, ShardName(0, 0))
    for verb in (("predict", ".", "--out", str(out), "--local"), ("plan", ".", "--workers", "1")):
        done = subprocess.run(
            # As the installed command, which has no current folder on its path.
            [sys.executable, "-P", "-m", "cifar_ray", *verb],
            cwd=store,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert not ran.exists(), verb
