"""Decoding with care: in a child process, so that no file can take the worker with it.

A child serves image after image. If it crashes, if the watchdog ends it over its limits, or the
system for want of memory, then the file gets a second try in a fresh child, since something else
may have ended the first; the file that ends that one too is `decode_failed`.
"""

import json
import os
import subprocess
import threading
from dataclasses import asdict
from typing import IO

import numpy as np
import psutil

from cifar_ray.errors import CifarRayError, ImageFault
from cifar_ray.images.decode import DecodeOptions, Pixels
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.prediction.care.decode_child import MAX_ALARM_S, READY, REQUEST
from cifar_ray.prediction.care.watchdog import Watchdog
from cifar_ray.prediction.child import module_command

ATTEMPTS = 2
ALARM_FACTOR = 4
MODULE = "cifar_ray.prediction.care.decode_child"
FEW_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class ChildEnded(Exception):
    """A child ended before it answered."""


class _Child:
    """A process that decodes, and has said that it is ready to."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **FEW_THREADS},
        )
        assert self.process.stdin is not None, "a pipe by construction"
        assert self.process.stdout is not None, "a pipe by construction"
        self.requests: IO[bytes] = self.process.stdin
        self.answers: IO[bytes] = self.process.stdout
        # Its start is not counted as any image's time.
        if self.answers.readline() != READY:
            raise CifarRayError("The process that decodes with care does not start.")
        self.watched = psutil.Process(self.process.pid)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


class CarefulDecoding:
    """Decodes and preprocesses in children, one for each thread that asks."""

    def __init__(self, options: DecodeOptions, preprocess: Preprocess, watchdog: Watchdog) -> None:
        """Start nothing yet; `close` ends the children."""
        self.size = preprocess.input_size
        self.watchdog = watchdog
        settings = {"options": asdict(options), "preprocess": preprocess.model_dump(mode="json")}
        self.command = module_command(MODULE, json.dumps(settings))
        self.children: dict[int, _Child] = {}
        self.closed = False

    def prepare(self, data: bytes) -> tuple[Pixels, int, int]:
        """Return the model's input (S×S×3 uint8), width and height; `ImageFault` as of `decode`."""
        for _ in range(ATTEMPTS):
            try:
                return self._ask(data)
            except ChildEnded:
                self.children.pop(threading.get_ident()).end()
        raise ImageFault("decode_failed", "decoding it crashes, does not end, or takes all memory")

    def close(self) -> None:
        """End the children."""
        self.closed = True
        for child in list(self.children.values()):
            child.end()

    def _ask(self, data: bytes) -> tuple[Pixels, int, int]:
        child = self._child()
        alarm_s = ALARM_FACTOR * self.watchdog.limits.seconds_for(len(data))
        self.watchdog.begin_in_child(len(data), child.process, child.watched)
        try:
            child.requests.write(REQUEST.pack(len(data), min(MAX_ALARM_S, 1 + int(alarm_s))))
            child.requests.write(data)
            child.requests.flush()
            line = child.answers.readline()
            reply = json.loads(line) if line.endswith(b"\n") else None
            if reply is None:
                raise ChildEnded
            if "status" in reply:
                raise ImageFault(reply["status"], reply["error"])
            pixels = child.answers.read(self.size * self.size * 3)
            if len(pixels) < self.size * self.size * 3:
                raise ChildEnded
        except OSError as error:  # a broken pipe
            raise ChildEnded from error
        finally:
            self.watchdog.end()
        shape = (self.size, self.size, 3)
        return np.frombuffer(pixels, np.uint8).reshape(shape), reply["width"], reply["height"]

    def _child(self) -> _Child:
        """Return the calling thread's child."""
        thread = threading.get_ident()
        if thread not in self.children:
            if self.closed:
                raise CifarRayError("The worker has ended.")
            self.children[thread] = _Child(self.command)
        return self.children[thread]
