"""What this machine can compute with; nothing here loads torch or OpenVINO."""

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_LEVELS = (
    ("avx512_amx_bf16", {"avx512f", "amx_tile", "amx_bf16"}),
    ("avx512_bf16", {"avx512f", "avx512_bf16"}),
    ("avx512_vnni", {"avx512f", "avx512_vnni"}),
    ("avx512", {"avx512f"}),
    ("avx2", {"avx2"}),
)
FAST_BFLOAT16 = ("avx512_amx_bf16", "avx512_bf16")
"""Instruction sets that multiply bfloat16 natively; elsewhere it is emulated and slow."""
FAST_INT8 = (*FAST_BFLOAT16, "avx512_vnni")
"""Those that multiply and add int8 in one step, into sums that cannot overflow."""


def detect_instruction_set(cpuinfo: Path = _CPUINFO) -> str:
    """Return the widest of our levels that the CPU has, or the machine's architecture.

    Only Linux tells flags; elsewhere the architecture stands for itself (`arm64`, `amd64`).
    """
    try:
        match = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        match = None
    flags = set(match[1].split()) if match else set()
    for name, needed in _LEVELS:
        if needed <= flags:
            return name
    architecture = platform.machine().lower()
    return {"aarch64": "arm64", "x86_64": "amd64"}.get(architecture, architecture)


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed package, None if it is absent."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def importable(module: str) -> bool:
    """Tell whether a module is there, which half an installation's version does not say."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def may_have_gpu() -> bool:
    """Tell cheaply whether asking torch for a GPU is worth its import."""
    torch_version = installed_version("torch") or ""
    if "+cpu" in torch_version:
        return False
    if platform.system() == "Windows":
        return Path(r"C:\Windows\System32\nvcuda.dll").exists()
    return any(Path("/dev").glob("nvidia[0-9]*"))


def gpu_name() -> str | None:
    """Return the first GPU's name as torch tells it, None if it sees none; loads torch."""
    if not may_have_gpu():
        return None
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
