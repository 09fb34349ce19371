"""Where the time of a thread goes, stage by stage."""

import time


class Stopwatch:
    """Adds up the seconds of stages that follow each other."""

    def __init__(self) -> None:
        """Nothing is timed yet."""
        self.seconds: dict[str, float] = {}
        self.stage = ""
        self.since = 0.0

    def start(self, stage: str) -> None:
        """End the stage before it, and begin this one."""
        now = time.perf_counter()
        if self.stage:
            self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self.since
        self.stage, self.since = stage, now

    def stop(self) -> None:
        """End the last stage."""
        self.start("")
