import subprocess
import sys
from pathlib import Path

import pytest

from cifar_ray.config.execution import Execution, ExecutionRequest
from cifar_ray.errors import InputError
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models.backends import machine, open_backend, resolve_execution
from tests.unit.models.bundles import MEAN, STD, make_bundle, make_spec

CPU = ExecutionRequest(device="cpu")


def cpuinfo(folder: Path, flags: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
    return path


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("sse2 avx2", "avx2"),
        ("avx2 avx512f", "avx512"),
        ("avx2 avx512f avx512_vnni", "avx512_vnni"),
        ("avx2 avx512f avx512_vnni avx512_bf16", "avx512_bf16"),
        ("avx2 avx512f avx512_bf16 amx_bf16 amx_tile amx_int8", "avx512_amx_bf16"),
    ],
)
def test_instruction_sets_are_told_by_flags(tmp_path: Path, flags: str, name: str) -> None:
    assert machine.detect_instruction_set(cpuinfo(tmp_path, flags)) == name


def test_without_flags_the_architecture_stands_for_itself(tmp_path: Path) -> None:
    assert machine.detect_instruction_set(tmp_path / "absent") in ("amd64", "arm64")


def test_on_a_cpu_precision_follows_the_instruction_set() -> None:
    execution = resolve_execution(CPU, make_spec())
    fast = execution.instruction_set in machine.FAST_BFLOAT16
    assert execution.precision == ("bfloat16" if fast else "float32")
    assert execution.device == "cpu"
    assert execution.versions["numpy"]
    assert execution.versions[execution.backend] != "absent"


def test_batch_size_follows_the_input_size_unless_asked_for() -> None:
    large = make_spec(network="resnet18", preprocess=Preprocess(squash=224, mean=MEAN, std=STD))
    assert resolve_execution(CPU, make_spec()).batch_size == 64
    assert resolve_execution(CPU, large).batch_size == 16
    asked = ExecutionRequest(device="cpu", batch_size=5, threads=3)
    assert resolve_execution(asked, large).batch_size == 5
    assert resolve_execution(asked, large).threads == 3


def test_only_what_the_user_decided_is_explicit() -> None:
    request = ExecutionRequest(device="auto", precision="float32", batch_size=None, threads=2)
    assert request.explicit() == {"precision": "float32", "threads": 2}


def test_what_a_cpu_cannot_do_is_refused() -> None:
    with pytest.raises(InputError, match="float16"):
        resolve_execution(ExecutionRequest(device="cpu", precision="float16"), make_spec())
    if machine.gpu_name() is None:
        with pytest.raises(InputError, match="no GPU"):
            resolve_execution(ExecutionRequest(device="cuda"), make_spec())


def test_an_execution_of_another_machine_is_refused_with_every_reason(tmp_path: Path) -> None:
    execution = resolve_execution(CPU, make_spec())
    versions = {**execution.versions, "numpy": "1.0", "gone": "2.0"}
    there = execution.model_copy(update={"instruction_set": "vax", "versions": versions})
    bundle = make_bundle(tmp_path / "bundle")
    told = r"not vax; numpy is .*, not 1\.0; gone is absent, not 2\.0"
    with pytest.raises(InputError, match=told):
        open_backend(bundle, there, tmp_path)


def test_an_execution_survives_json() -> None:
    execution = resolve_execution(CPU, make_spec())
    assert Execution.model_validate_json(execution.model_dump_json()) == execution


def test_resolving_for_a_cpu_loads_no_torch() -> None:
    spec = make_spec().model_dump_json()
    code = f"""
import sys
from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.models.backends import resolve_execution
from cifar_ray.models.bundle_spec import BundleSpec
spec = BundleSpec.model_validate_json({spec!r})
resolve_execution(ExecutionRequest(device="cpu"), spec)
print([name for name in ("torch", "openvino", "torchvision") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
