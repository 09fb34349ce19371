"""`benchmarks.tune`: which images its accuracies are of, and what it counts as overhead."""

import io
import json
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

if find_spec("ray") is None:
    pytest.skip("Ray has no package for this platform", allow_module_level=True)

from benchmarks.tune import (
    Clock,
    Point,
    Searched,
    Setting,
    accuracies_on_test,
    at_marks,
    full_trainings,
    occupied,
    plot,
    train_in_full,
)
from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.spaces import get_space
from cifar_ray.config.training import override
from cifar_ray.runs import TrainingRun
from cifar_ray.training.search.record import Records
from tests.unit.training.search.recorded import spec_of

REPOSITORY = Path(__file__).resolve().parents[3]
COLOURS = ("blue", "green", "red")


def write(path: Path, each: int, labels: tuple[str, ...]) -> None:
    """Write `each` images of a colour, in shades, under the label in the colour's place."""
    rng = random.Random(path.name)
    images, names = [], []
    for number, label in enumerate(labels):
        for _ in range(each):
            channels = [rng.randrange(60) for _ in COLOURS]
            channels[2 - number] += 150
            data = io.BytesIO()
            Image.new("RGB", (32, 32), tuple(channels)).save(data, "PNG")
            images.append(data.getvalue())
            names.append(label)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": images, "label": names}), path)


def test_accuracies_are_of_the_test_file_and_not_of_held_out_training_images(
    tmp_path: Path,
) -> None:
    write(tmp_path / "data" / "train.parquet", 40, COLOURS)
    # Whoever is right about the training images is wrong about every one of these.
    write(tmp_path / "data" / "test.parquet", 5, (*COLOURS[1:], COLOURS[0]))
    config = override(get_recipe("cnn-122k"), ["epochs=6", "batch_size=12"])
    assert config.splits.leave_test_images
    space = get_space("optimizer", config)
    setting = Setting(str(tmp_path / "data"), space, tmp_path, config, 1, 1, 1, tmp_path)
    runs = [train_in_full(spec) for spec in full_trainings(setting, "recipe", {})]
    of_training_images = json.loads(TrainingRun(runs[0]).metrics.read_text())["accuracy"]
    assert of_training_images > 0.9
    assert accuracies_on_test(setting, runs)[0] < 0.1


def test_trainings_end_with_a_benchmark_that_is_killed() -> None:
    script = (
        "import os, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from benchmarks.tune import end_with_parent\n"
        "pool = ProcessPoolExecutor(1, get_context('spawn'), end_with_parent)\n"
        "print(pool.submit(os.getpid).result(), flush=True)\n"
        "pool.submit(time.sleep, 600).result()\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        training = psutil.Process(int(driver.stdout.readline()))
        driver.kill()
    training.wait(timeout=60)


def test_overhead_is_the_time_of_warm_workers_without_their_trainings() -> None:
    clocks = [Clock(1, 50.0, 40.0), Clock(1, 61.0, 10.0), Clock(1, 73.0, 11.0)]
    clocks += [Clock(2, 55.0, 44.0), Clock(2, 67.0, 10.5), Clock(3, 60.0, 9.0)]
    assert occupied(clocks) == (35.0, 31.5)


def test_searches_are_compared_by_what_each_had_reached_at_a_mark(tmp_path: Path) -> None:
    def searched(*points: tuple[int, float, float]) -> Searched:
        curve = [Point(*point) for point in points]
        return Searched(Records.load(spec_of(tmp_path)), curve, curve[-1].seconds)

    results = {
        "asha": [searched((1, 2.0, 0.2), (8, 9.0, 0.6)), searched((2, 3.0, 0.4), (8, 8.0, 0.5))],
        "random": [searched((1, 3.0, 0.3), (8, 12.0, 0.4))],
    }
    assert at_marks(results, "epochs", [2, 7, 8]) == [
        ["asha, 2 seeds", "30.00 % ± 14.14", "30.00 % ± 14.14", "55.00 % ± 7.07"],
        ["random, 1 seeds", "30.00 %", "30.00 %", "40.00 %"],
    ]
    assert at_marks(results, "seconds", [2, 8]) == [
        ["asha, 2 seeds", "10.00 % ± 14.14", "35.00 % ± 21.21"],
        ["random, 1 seeds", "0.00 %", "30.00 %"],
    ]
    plot(results, tmp_path / "tune.svg")
    assert {"asha", "random"} <= set((tmp_path / "tune.svg").read_text().split())
