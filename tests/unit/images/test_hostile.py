"""Hostile files, decoded in a process of their own that may not take much memory."""

import json
import subprocess
import sys

import pytest

from cifar_ray.prediction.row import STATUSES
from tests.conftest import REPOSITORY
from tests.unit.images.hostile import hostile_files

ADDRESS_SPACE = 6 * 2**30
MAX_MEMORY = 512 * 2**20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits on memory")


def decoded(num_mutated: int) -> dict[str, dict[str, str]]:
    """Decode all files with both decoders; return statuses, once memory is seen to be low."""
    command = [sys.executable, "-m", "tests.unit.images.hostile", str(ADDRESS_SPACE)]
    done = subprocess.run(
        [*command, str(num_mutated)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    said = json.loads(done.stdout)
    assert said["peak_bytes"] < MAX_MEMORY
    statuses: dict[str, dict[str, str]] = said["statuses"]
    return statuses


def test_every_hostile_file_gets_its_status_in_little_memory() -> None:
    files = hostile_files()
    assert len(files) >= 80
    for decoder, statuses in decoded(0).items():
        assert list(statuses) == list(files)
        wrong = {
            (decoder, name, status)
            for name, status in statuses.items()
            if status not in (files[name][1] or STATUSES)
        }
        assert not wrong


def check_mutated(number: int) -> None:
    for statuses in decoded(number).values():
        assert len(statuses) == number
        assert set(statuses.values()) <= set(STATUSES)
        assert {"ok", "truncated", "decode_failed"} <= set(statuses.values())


def test_hundreds_of_mutated_files_get_a_status_each() -> None:
    check_mutated(600)


@pytest.mark.slow
def test_ten_thousand_mutated_files_get_a_status_each() -> None:
    check_mutated(10_000)
