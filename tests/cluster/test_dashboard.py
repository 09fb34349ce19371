"""`--dashboard`: an embedded Ray shows what it does, to whoever has the token."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from cifar_ray.cli.boundary import INTERRUPTED
from tests.cluster.conftest import REPOSITORY, environment
from tests.drawing import draw_classes

TIMEOUT_S = 60
VERBS: dict[str, Callable[[Path], list[str]]] = {
    "predict": lambda out: ["--out", str(out)],
    "train": lambda out: ["--out", str(out), "--recipe", "cnn-122k"],
    "tune": lambda out: ["--out", str(out), "--recipe", "cnn-122k", "--space", "optimizer"],
}


@pytest.mark.parametrize(
    "verb", ["train", *(pytest.param(verb, marks=pytest.mark.slow) for verb in ("predict", "tune"))]
)
def test_the_dashboard_is_where_the_command_says_and_wants_the_token(
    verb: str, tmp_path: Path
) -> None:
    draw_classes(tmp_path / "classes", each=30)
    arguments = [verb, str(tmp_path / "classes"), *VERBS[verb](tmp_path / "out"), "--dashboard"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cifar_ray", *arguments],
        cwd=REPOSITORY,
        env=environment() | {"COLUMNS": "400"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        found = re.search(r"Dashboard (http://127\.0\.0\.1:\d+) asks for the token in (.+);", line)
        if found:
            break
    else:
        pytest.fail("".join(lines))
    page, token = f"{found[1]}/api/cluster_status", Path(found[2]).read_text()
    answer = requests.get(page, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S)
    assert answer.ok
    assert answer.json()["result"]
    assert requests.get(page, timeout=TIMEOUT_S).status_code == 401
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == INTERRUPTED, "".join(lines) + said
