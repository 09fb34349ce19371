"""Opening a sealed run again: what is replaced is kept under `_history/`, a folder a time.

The first act is to move the receipt, so that nobody takes the run for sealed meanwhile.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cifar_ray.runs import LabellingRun
from cifar_ray.storage import Store

Reason = Literal["repair", "retry-failed", "update"]


@dataclass(frozen=True, slots=True)
class Reopening:
    """One time that a run was opened again."""

    number: int
    """From 1."""
    reason: Reason

    def keep(self, store: Store, name: str) -> None:
        """Move a file of the run into the history; nothing happens if there is none."""
        try:
            store.move(name, LabellingRun.history(self.number, name))
        except FileNotFoundError:
            return


def reopen(store: Store, reason: Reason) -> Reopening:
    """Open a run again, or go on with having opened it for the same reason."""
    latest = last_reopening(store)
    if latest is not None and latest.reason == reason and not store.exists(LabellingRun.RECEIPT):
        return latest
    return _open_again(store, Reopening(latest.number + 1 if latest else 1, reason))


def reopen_and_move(store: Store, reason: Reason, names: Iterable[str]) -> Reopening:
    """Open a run again and move files of it into the history, all of them or none.

    What is to be moved is written down first: a part that stays because the process was killed
    would be sealed as a good one. `finish_moves` goes on.
    """
    latest = last_reopening(store)
    number, listed = latest.number + 1 if latest else 1, list(names)
    moves = {"reopening": number, "reason": reason, "names": listed}
    store.write(LabellingRun.MOVES, json.dumps(moves).encode())
    return _move(store, number, reason, listed)


def finish_moves(store: Store) -> None:
    """Move what a killed process was about to; nothing happens if there was none."""
    try:
        moves = json.loads(store.read(LabellingRun.MOVES))
    except FileNotFoundError:
        return
    _move(store, moves["reopening"], moves["reason"], moves["names"])


def _move(store: Store, number: int, reason: Reason, names: list[str]) -> Reopening:
    reopening = _open_again(store, Reopening(number, reason))
    for name in names:
        reopening.keep(store, name)
    store.delete(LabellingRun.MOVES)
    return reopening


def _open_again(store: Store, reopening: Reopening) -> Reopening:
    name = LabellingRun.history(reopening.number, LabellingRun.REASON)
    store.write(name, json.dumps({"reason": reopening.reason}).encode())
    reopening.keep(store, LabellingRun.RECEIPT)
    return reopening


def last_reopening(store: Store) -> Reopening | None:
    """Return the last time that a run was opened again; None if it never was."""
    numbers = [int(name) for name in store.names(LabellingRun.HISTORY) if name.isdigit()]
    if not numbers:
        return None
    name = LabellingRun.history(max(numbers), LabellingRun.REASON)
    return Reopening(max(numbers), json.loads(store.read(name))["reason"])
