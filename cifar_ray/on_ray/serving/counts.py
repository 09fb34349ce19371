"""Keeps the counts of all replicas, the ended ones' too, so that no counter ever falls."""

import time
from dataclasses import dataclass

from cifar_ray.on_ray.serving.doors import listen_on_node_address
from cifar_ray.serving.metrics import Snapshot

SILENT_S = 30.0
"""After so long without a word from a replica, what it had in hand is no longer counted."""


@dataclass(frozen=True, slots=True)
class _Heard:
    at: float
    snapshot: Snapshot


class Counts:
    """The class of a deployment of one."""

    def __init__(self) -> None:
        listen_on_node_address()
        self._heard: dict[str, _Heard] = {}

    def add(self, replica: str, snapshot: Snapshot) -> list[Snapshot]:
        """Take in what a replica has counted so far; return what all have."""
        self._heard[replica] = _Heard(time.monotonic(), snapshot)
        return [self._current(heard) for heard in self._heard.values()]

    @staticmethod
    def _current(heard: _Heard) -> Snapshot:
        if time.monotonic() - heard.at < SILENT_S:
            return heard.snapshot
        families = heard.snapshot.families
        return Snapshot(tuple(family for family in families if family.type != "gauge"))
