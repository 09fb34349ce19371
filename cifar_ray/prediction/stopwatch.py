"""Where the time of a thread or of a process goes, stage by stage."""

import time
from collections.abc import Callable


class Stopwatch:
    """Adds up the seconds of stages that follow each other."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Nothing is timed yet; the clock decides what is told: wall time, or CPU time."""
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self.stage = ""
        self.since = 0.0

    def start(self, stage: str) -> None:
        """End the stage before it, and begin this one."""
        now = self.clock()
        if self.stage:
            self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self.since
        self.stage, self.since = stage, now

    def stop(self) -> None:
        """End the last stage."""
        self.start("")


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
