"""How far a training run is: rank 0 puts it into the run's place, and the driver reads it there."""

import json
import time
from dataclasses import asdict
from typing import Any

from cifar_ray.errors import StoreUnavailable
from cifar_ray.runs import TrainingRun
from cifar_ray.storage import FolderStore, open_store
from cifar_ray.training.epoch import EpochRow, Step
from cifar_ray.training.pipeline import write_json

FOLDER_INTERVAL_S = 0.5
BUCKET_INTERVAL_S = 5.0
"""Requests cost money."""


class RunBoard:
    """The files of a run that tell how far it is, in its folder or its bucket."""

    def __init__(self, uri: str) -> None:
        self.store = open_store(uri)
        in_folder = isinstance(self.store, FolderStore)
        self.interval_s = FOLDER_INTERVAL_S if in_folder else BUCKET_INTERVAL_S
        self.due = 0.0

    def tell(self, step: Step) -> None:
        """Put a step where the driver finds it; a bucket hears of some."""
        if isinstance(self.store, FolderStore):
            # Five a second need not outlast a power cut, as what a store writes does.
            write_json(TrainingRun(self.store.root).progress, asdict(step))
        elif time.monotonic() >= self.due:
            self.due = time.monotonic() + self.interval_s
            self.store.write(TrainingRun.PROGRESS, json.dumps(asdict(step)).encode())

    def step(self) -> Step | None:
        """Return the newest step that was told."""
        content = self._read(TrainingRun.PROGRESS)
        return None if content is None else Step(**content)

    def rows(self) -> list[EpochRow]:
        """Return the epochs that are done."""
        return [EpochRow(**row) for row in self._read(TrainingRun.HISTORY) or ()]

    def clear(self) -> None:
        """Remove the step."""
        self.store.delete(TrainingRun.PROGRESS)

    def _read(self, name: str) -> Any:
        """Return a file's content; files are replaced atomically, so that it is whole."""
        try:
            return json.loads(self.store.read(name))
        except (FileNotFoundError, StoreUnavailable):
            # A display can wait; training itself says what is wrong with the store.
            return None
