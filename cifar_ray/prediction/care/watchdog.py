"""Ends what decodes for too long or takes too much memory: a child, or else the whole worker.

Nothing in a process can stop a library that does not return, so the worker ends itself; its driver
starts another one, which finds the mark of the shard and does it with care.
"""

import faulthandler
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from threading import get_ident
from typing import NamedTuple, NoReturn

import psutil

from cifar_ray.config.labelling import LabellingConfig

TICK_S = 0.1
GRACE_S = 10.0
"""That a watchdog may get no turn on a busy machine before its process is ended from outside."""
EXIT_CODE = 86
"""Of a worker that its watchdog has ended."""
STDERR = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What decoding one image may take."""

    seconds: float
    """For an empty file; each MiB of it adds a second."""
    memory_bytes: int

    @classmethod
    def of(cls, config: LabellingConfig) -> "Limits":
        """Return those of a run."""
        return cls(config.decode_timeout_s, config.decode_memory_mb * 2**20)

    def ticks_for(self, size_bytes: int) -> int:
        """Return the same in looks of the watchdog, of which the first comes at any moment."""
        return 1 + int(self.seconds_for(size_bytes) / TICK_S)

    def seconds_for(self, size_bytes: int) -> float:
        """Return how long a file of this size may take."""
        return self.seconds + size_bytes / 2**20


def end_worker() -> NoReturn:
    """End this process, whatever its other threads are in."""
    sys.stderr.write("Decoding an image took too long or too much memory; the worker ends.\n")
    sys.stderr.flush()
    os._exit(EXIT_CODE)


class _Watched(NamedTuple):
    began: int
    until: int
    end: Callable[[], None]
    process: psutil.Process
    memory_bytes: int


class Watchdog:
    """A thread that looks ten times a second at what the others decode.

    Time is counted in its looks: to it, a process or machine that was suspended for an hour has
    lost a tick, and no image is blamed for that.
    """

    def __init__(
        self,
        limits: Limits,
        end_worker: Callable[[], None] = end_worker,
        armed: bool = True,
    ) -> None:
        """Start the thread; `close` ends it.

        `armed`: should the thread never get a turn again, end the process from outside of Python.
        """
        self.limits = limits
        self.armed = armed
        process = psutil.Process()
        # What the model and the batches hold is no image's doing.
        worker_memory_bytes = process.memory_info().rss + limits.memory_bytes
        self.worker = (end_worker, process, worker_memory_bytes)
        self.ticks = 0
        self.watched: dict[int, _Watched] = {}
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._look_on, daemon=True, name="watchdog")
        self.thread.start()

    def begin(self, size_bytes: int) -> None:
        """The calling thread begins to decode; beyond the limits, this process is ended."""
        began = self.ticks
        until = began + self.limits.ticks_for(size_bytes)
        self.watched[get_ident()] = _Watched(began, until, *self.worker)

    def begin_in_child(
        self, size_bytes: int, child: "subprocess.Popen[bytes]", process: psutil.Process
    ) -> None:
        """A child decodes for the calling thread; beyond the limits, the child is killed."""
        until = self.ticks + self.limits.ticks_for(size_bytes)
        watched = _Watched(self.ticks, until, child.kill, process, self.limits.memory_bytes)
        self.watched[get_ident()] = watched

    def end(self) -> None:
        """The calling thread has decoded."""
        del self.watched[get_ident()]

    def close(self) -> None:
        """Stop looking."""
        self.closed.set()
        self.thread.join()

    def _look_on(self) -> None:
        armed_until = 0
        while not self.closed.wait(TICK_S):
            self.ticks += 1
            watched = list(self.watched.values())
            for one in watched:
                if one.began < self.ticks - 1 and self._exceeds(one):
                    one.end()
            if self.armed and self.ticks >= armed_until:
                armed_until = self.ticks + int(1 / TICK_S)
                self._arm(watched)
        if self.armed:
            faulthandler.cancel_dump_traceback_later()

    def _exceeds(self, one: _Watched) -> bool:
        try:
            return self.ticks > one.until or one.process.memory_info().rss > one.memory_bytes
        except psutil.NoSuchProcess:
            return False  # A child that has ended by itself: who reads its output sees that.

    def _arm(self, watched: list[_Watched]) -> None:
        """Have the process ended from outside of Python should this thread never run again.

        A library that does not return may not have released the interpreter's lock either; and it
        may have taken it since the last look, so that this is armed also when nothing is decoded.
        """
        idle_until = self.ticks + int(self.limits.seconds / TICK_S)
        ticks_left = max((one.until for one in watched), default=idle_until) - self.ticks
        seconds = GRACE_S + max(0.0, ticks_left * TICK_S)
        faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)
