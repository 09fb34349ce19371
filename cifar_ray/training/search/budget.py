"""The bound on a search's epochs over all its trials: an epoch begins only with a permit.

Permits are counted in one file of the search, `epochs.json`, by the workers that train. They take
one before an epoch begins, under a lock, so that neither workers side by side nor kills and new
starts let a search train more than it may. An epoch that a kill has interrupted keeps its permit.
One that never comes to count has used it all the same: its loss was not finite, or a kill came
between its last step and its checkpoint.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from filelock import FileLock

from cifar_ray.config.search import SearchSpec
from cifar_ray.runs import SearchRun
from cifar_ray.training.pipeline import write_json


class Account(TypedDict):
    """What a trial has taken of its search's epochs."""

    begun: int
    open: bool
    """Whether its last epoch was begun, but not trained to its end."""
    refused: bool
    """Whether it would have gone on with one more."""


@dataclass(frozen=True, slots=True)
class EpochBudget:
    """A trial's way to the epochs that its search may still train; any number without a limit."""

    run: SearchRun
    trial: int
    limit: int | None

    @classmethod
    def of(cls, spec: SearchSpec, trial: int) -> "EpochBudget":
        """Return a trial's budget in its search."""
        return cls(SearchRun(Path(spec.run)), trial, spec.epoch_budget)

    def take(self) -> bool:
        """Ask to train an epoch. Until it is settled, asking again is about the same one."""
        if self.limit is None:
            return True
        with FileLock(self.run.epochs_lock):
            accounts = self._read()
            own = self._own(accounts)
            if own["open"]:
                return True
            if sum(account["begun"] for account in accounts.values()) < self.limit:
                own["begun"] += 1
                own["open"] = True
            else:
                own["refused"] = True
            self._write(accounts, own)
            return own["open"]

    def settle(self) -> None:
        """Note that the epoch was trained; before it is kept, or a kill could leave it for free."""
        if self.limit is None:
            return
        with FileLock(self.run.epochs_lock):
            accounts = self._read()
            own = self._own(accounts)
            own["open"] = False
            self._write(accounts, own)

    @property
    def was_refused(self) -> bool:
        """Whether the trial would have gone on."""
        return self.limit is not None and self._own(self._read())["refused"]

    def _own(self, accounts: dict[str, Account]) -> Account:
        return accounts.get(f"{self.trial:04d}", Account(begun=0, open=False, refused=False))

    def _read(self) -> dict[str, Account]:
        try:
            accounts: dict[str, Account] = json.loads(self.run.epochs.read_text())
        except FileNotFoundError:
            return {}
        return accounts

    def _write(self, accounts: dict[str, Account], own: Account) -> None:
        write_json(self.run.epochs, {**accounts, f"{self.trial:04d}": own})
