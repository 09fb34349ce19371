"""The entry points in jobs/: a spec file in, the verb's exit code out. On the local engine here."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from cifar_ray import __version__
from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.job import PredictJob, TuneJob
from cifar_ray.config.labelling import LabellingConfig, RunOptions
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.search import SearchSpec
from cifar_ray.config.spaces import get_space
from tests.conftest import REPOSITORY
from tests.drawing import draw_classes


def run(verb: str, spec: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "jobs" / f"{verb}.py"), str(spec)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def job(source: Path, destination: Path) -> PredictJob:
    return PredictJob(
        source=str(source),
        destination=str(destination),
        config=LabellingConfig(top_k=2),
        execution=ExecutionRequest(device="cpu"),
        options=RunOptions(engine="local", workers=1),
    )


def test_a_spec_is_run_and_run_again(drawn_images: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_bytes(job(drawn_images, tmp_path / "out").to_bytes())
    done = run("predict", spec)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "out" / "predictions")
    assert rows.num_rows == 24
    assert {len(labels) for labels in rows["top_labels"].to_pylist()} == {2}
    again = run("predict", spec)
    assert again.returncode == 0
    assert "complete already" in again.stderr


def test_a_search_is_opened_as_the_verb_opens_it(tmp_path: Path) -> None:
    draw_classes(tmp_path / "classes", each=1)
    config = get_recipe("cnn-122k")
    folder = tmp_path / "search"
    folder.mkdir()
    (folder / "notes.txt").write_text("somebody else's")
    search = SearchSpec(
        config=config,
        space=get_space("optimizer", config),
        search="random",
        scheduler="none",
        num_trials=1,
        seed=0,
        data=str(tmp_path / "classes"),
        run=str(folder),
        code_version=__version__,
    )
    spec = tmp_path / "spec.json"
    spec.write_bytes(TuneJob(search=search).to_bytes())
    done = run("tune", spec)
    assert done.returncode == 2, done.stderr
    assert "holds no search" in done.stderr


def test_what_is_wrong_is_told_with_the_verb_s_exit_code(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_bytes(job(tmp_path / "nowhere", tmp_path / "out").to_bytes())
    done = run("predict", spec)
    assert done.returncode == 2
    assert "does not exist" in done.stderr
    other = run("train", spec)
    assert other.returncode == 2
    assert "is a spec of `predict`" in other.stderr
