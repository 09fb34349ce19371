"""Nodes that come and go while a run goes on."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.conftest import IMAGES_PER_SHARD, REPOSITORY, parts
from tests.cluster.nodes import Nodes

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with Nodes() as cluster:
        yield cluster


def num_parts(out: Path) -> int:
    return len(list(out.glob("predictions/part-*.parquet")))


def test_a_node_that_dies_while_labelling_costs_no_row(
    nodes: Nodes, images: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first, _ = nodes.add(), nodes.add()
    command = [sys.executable, "-m", "cifar_ray", "predict", str(images), "--out", str(out)]
    command += ["--address", nodes.head_address(), "--workers", "2", "--max-failure-rate", "1"]
    command += ["--images-per-shard", str(IMAGES_PER_SHARD)]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=nodes.environment(), stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and num_parts(out) < 3:
        psutil.wait_procs([psutil.Process(process.pid)], timeout=0.05)
    assert process.poll() is None, process.communicate()[1]
    assert num_parts(out) < len(undisturbed)
    nodes.kill(first)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert parts(out) == undisturbed
