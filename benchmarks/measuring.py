"""Runs a command and says what it took, with all that it started: wall, CPU and memory.

`python -m benchmarks.measuring REPORT COMMAND …` writes REPORT as JSON. It makes itself the parent
of orphans (Linux), as Ray's processes are, so that their CPU time is counted too.
"""

import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from cifar_ray.config.machine import usable_cores

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE_S = 1.0
PR_SET_CHILD_SUBREAPER = 36
ORPHANS_S = 30.0


@dataclass(frozen=True)
class Usage:
    began: float
    """Seconds since the epoch."""
    wall_s: float
    cpu_s: float
    peak_bytes: int
    """Of proportional memory of all processes together, looked at once a second."""


def measure(command: list[str], folder: Path) -> tuple[Usage, str]:
    """Run a command in a folder; return what it took and what it printed."""
    report = folder / "usage.json"
    launcher = [sys.executable, "-m", "benchmarks.measuring", str(report), *command]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        launcher, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return Usage(**json.loads(report.read_text())), done.stdout


def measure_labelling(
    source: Path | str, bundle: Path, folder: Path, *options: str
) -> tuple[Usage, list[Path]]:
    """Label a store into an empty folder; return what it took, and the parts, oldest first.

    They lie below `folder` until the next labelling.
    """
    out = folder / "labels"
    shutil.rmtree(out, ignore_errors=True)
    command = ["-m", "cifar_ray", "predict", str(source), "--out", str(out), "--model", str(bundle)]
    usage, _ = measure([sys.executable, *command, *options], folder)
    parts = (out / "predictions").iterdir()
    return usage, sorted(parts, key=lambda path: path.stat().st_mtime)


def steady_rate(parts: list[Path]) -> float | None:
    """Return images/s from when each worker has committed a part; None for too few parts."""
    begun = usable_cores()
    if len(parts) <= begun:
        return None
    rows = sum(pq.read_metadata(path).num_rows for path in parts[begun:])
    return float(rows / (parts[-1].stat().st_mtime - parts[begun - 1].stat().st_mtime))


class _Memory(threading.Thread):
    """Looks at all processes below this one until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stopped = threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        while not self.stopped.wait(SAMPLE_S):
            processes = psutil.Process().children(recursive=True)
            self.peak_bytes = max(self.peak_bytes, sum(map(_proportional_bytes, processes)))


def _proportional_bytes(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
    except psutil.Error:
        return 0  # It has ended.
    return int(getattr(full, "pss", full.rss))


def _reap() -> None:
    until = time.monotonic() + ORPHANS_S
    while time.monotonic() < until:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)
        except ChildProcessError:
            return


def main() -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    memory = _Memory()
    memory.start()
    began, started = time.time(), time.perf_counter()
    code = subprocess.run(sys.argv[2:], check=False).returncode
    wall_s = time.perf_counter() - started
    memory.stopped.set()
    _reap()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    usage = Usage(began, wall_s, used.ru_utime + used.ru_stime, memory.peak_bytes)
    Path(sys.argv[1]).write_text(json.dumps(asdict(usage)))
    return code


if __name__ == "__main__":
    sys.exit(main())
