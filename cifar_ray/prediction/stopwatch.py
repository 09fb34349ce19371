"""Where the time of a thread or of a process goes, stage by stage."""

import time
from collections import defaultdict
from collections.abc import Callable


class Stopwatch:
    """Adds up the seconds of stages that follow each other, with one look at the clock for each."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """The first stage begins; the clock decides what is told: wall time, or CPU time."""
        self.clock = clock
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.since = clock()

    def lap(self, stage: str) -> None:
        """End a stage, which began when the one before it ended."""
        now = self.clock()
        self.seconds[stage] += now - self.since
        self.since = now


class CpuMeter:
    """Tells what this process has used of the CPU, in all its threads."""

    def __init__(self) -> None:
        """Nothing is told yet."""
        self.told = 0.0

    def lap(self) -> float:
        """Return CPU seconds since the last call; at first, since the process started."""
        now = time.process_time()
        seconds, self.told = now - self.told, now
        return seconds
