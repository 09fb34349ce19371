"""Opening a sealed run again: what is replaced is kept under `_history/`, a folder a time.

The first act is to move the receipt, so that nobody takes the run for sealed meanwhile.
"""

from dataclasses import dataclass

from cifar_ray.runs import LabellingRun
from cifar_ray.storage import Store


@dataclass(frozen=True, slots=True)
class History:
    """One time that a run was opened again."""

    store: Store
    number: int
    """From 1."""

    def keep(self, name: str) -> None:
        """Move a file of the run here; nothing happens if there is none."""
        try:
            self.store.move(name, LabellingRun.history(self.number, name))
        except FileNotFoundError:
            return


def reopen(store: Store) -> History:
    """Open a run again; `_history/` has a folder for it from now on."""
    history = History(store, latest(store) + 1)
    history.keep(LabellingRun.RECEIPT)
    return history


def latest(store: Store) -> int:
    """Return how many times the run was opened again."""
    numbers = (int(name) for name in store.names(LabellingRun.HISTORY) if name.isdigit())
    return max(numbers, default=0)
