"""A run on trial: what a real run costs beside its images is measured from command to exit."""

import sys
from pathlib import Path
from statistics import fmean

import pytest

from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.errors import Unfinished
from cifar_ray.models.opening import open_bundle
from cifar_ray.prediction.forecasting.trial import Trial, plan_on_trial, run_trial
from cifar_ray.prediction.plan import Request, first_entries
from cifar_ray.prediction.sources import find_source, open_source, split_source
from tests.drawing import draw_folder

BURNED_S = 3.0
BURN = f"""
import subprocess, sys, time
if "burn" not in sys.argv:
    assert sys.argv[sys.argv.index("--workers") + 1] == "1"
    assert sys.argv[sys.argv.index("--limit") + 1] == "1"
    # A worker is a process of its own, and ends before its run does.
    subprocess.run([sys.executable, sys.argv[0], "burn"], check=True)
else:
    while time.process_time() < {BURNED_S}:
        pass
"""
"""A command whose worker uses so many CPU seconds, which is more than a real one's start takes."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    draw_folder(tmp_path / "images", count=6)
    return tmp_path / "images"


def trial_of(images: Path, workers: int, command: tuple[str, ...]) -> Trial:
    config = LabellingConfig()
    request = Request(str(images), "", None, None, config, ExecutionRequest())
    reference = find_source(str(images), None, config)
    entries = first_entries(open_source(split_source(reference, config), config))
    with plan_on_trial(request, reference, open_bundle(None), entries) as plan:
        return run_trial(plan, entries, workers, command)


def test_start_and_end_are_those_of_a_real_run_with_all_its_processes(
    images: Path, tmp_path: Path
) -> None:
    script = tmp_path / "burn.py"
    script.write_text(BURN)
    trial = trial_of(images, 1, (sys.executable, str(script)))
    single_s = fmean(one.single_s for (one,) in trial.rounds)
    whole_s = trial.driver_cpu_s + trial.worker.cpu_s + single_s + trial.sealing.cpu_s
    # One rehearsal, not the sum of all; two starts of Python come to it.
    assert BURNED_S <= whole_s < BURNED_S + 2


def test_a_run_that_does_not_end_well_on_trial_is_told_with_its_log(images: Path) -> None:
    command = (sys.executable, "-c", "print('the disk is gone'); raise SystemExit(4)")
    with pytest.raises(Unfinished, match="the disk is gone"):
        trial_of(images, 1, command)
