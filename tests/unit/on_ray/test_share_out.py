"""What each process of a trial has: cores, threads and fractions of a GPU."""

from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("ray") is None:
    pytest.skip("Ray has no package for this platform", allow_module_level=True)

from cifar_ray.errors import InputError
from cifar_ray.on_ray.session import Session
from cifar_ray.on_ray.tuning.search import DRIVER_CPUS, share_out
from cifar_ray.on_ray.tuning.trainable import Place
from tests.unit.training.search.recorded import spec_of


def share(
    run: Path, cpus: float, gpus: float = 0.0, trials: int = 16, node: float = 8.0, **spec: object
) -> tuple[Place, int]:
    return share_out(spec_of(run, **spec), Session("local", cpus, gpus, None), trials, node)


def test_cores_are_shared_by_as_many_trials_as_there_are(tmp_path: Path) -> None:
    assert share(tmp_path, 8.0) == (Place("cpu", 1, 1.0, 0.0), 8)
    assert share(tmp_path, 8.0, trials=3) == (Place("cpu", 2, 2.0, 0.0), 3)
    assert share(tmp_path, 8.0, trials=1, node=2.0) == (Place("cpu", 2, 2.0, 0.0), 1)


def test_a_trial_may_have_a_fraction_of_a_gpu(tmp_path: Path) -> None:
    assert share(tmp_path, 8.0, 1.0, gpus_per_trial=0.25) == (Place("cuda", 2, 1.0, 0.25), 4)
    assert share(tmp_path, 8.0, 1.0, gpus_per_trial=0.1) == (Place("cuda", 1, 0.8, 0.1), 10)
    assert share(tmp_path, 8.0, 2.0, gpus_per_trial=0) == (Place("cpu", 1, 1.0, 0.0), 8)


def test_a_gpu_a_worker_where_there_are_gpus(tmp_path: Path) -> None:
    assert share(tmp_path, 8.0, 2.0) == (Place("cuda", 4, 1.0, 1.0), 2)
    place, at_once = share(tmp_path, 8.0, 2.0, workers_per_trial=2)
    assert (place.device, place.num_gpus, place.workers, at_once) == ("cuda", 1.0, 2, 1)


def test_the_driver_of_a_trial_in_two_processes_has_its_share(tmp_path: Path) -> None:
    place, at_once = share(tmp_path, 2.0, workers_per_trial=2)
    assert (place.threads, place.workers, at_once) == (1, 2, 1)
    assert 2 * place.num_cpus + DRIVER_CPUS == pytest.approx(2.0)


def test_more_gpus_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--gpus-per-trial 2: there are 1 GPUs"):
        share(tmp_path, 8.0, 1.0, gpus_per_trial=2)


def test_while_a_cluster_has_no_node_for_work_all_trials_wait_for_one_core_a_process(
    tmp_path: Path,
) -> None:
    assert share(tmp_path, 0.0, node=0.0) == (Place("cpu", 1, 1.0, 0.0), 16)
    found = share(tmp_path, 0.0, node=0.0, workers_per_trial=2, gpus_per_trial=2)
    assert found == (Place("cuda", 1, 1.0, 1.0, 2), 16)
