"""Who works on a run's place, DEST: a guard against two runs into one, by mistake.

A lease is a file of its own, numbered; the highest number holds. It is created only if absent, so
that of two that reach for the same number one wins, and its owner writes a beat into it now and
then. A lease that is given back stays, so that no number is given twice. Whoever finds a lease

    that was given back                             takes the next number at once
    of a process of this machine that is gone       takes the next number at once
    of a process of this machine that lives         is refused
    of another machine                              watches the beat by its own clock, and takes
                                                    the next number if the beat stands still

Safety does not rest on it. Of labelling, chunks of the manifest are created only if absent, parts
follow from them, and sealing reads them all: a driver that was paused and wakes beside its
successor notices the higher number before it seals anything, and until then writes what its
successor would write. So does a training, whose epochs follow from the checkpoint before them.
"""

import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydantic import ValidationError

from cifar_ray.config.frozen import FrozenConfig
from cifar_ray.errors import CifarRayError, InputError, Unfinished, printable
from cifar_ray.runs import LeasedRun
from cifar_ray.storage.base import Store

BEAT_INTERVAL_S = 5.0
STANDSTILL_S = 30.0
LOOK_INTERVAL_S = 1.0


class LeaseRecord(FrozenConfig):
    """What stands in the file of a lease."""

    owner: str
    host: str
    boot_id: str
    process_id: int
    process_started: float
    beat: int = 0
    released: bool = False

    @classmethod
    def of_this_process(cls) -> "LeaseRecord":
        """Return a new one of this process."""
        process = psutil.Process()
        return cls(
            owner=uuid.uuid4().hex,
            host=platform.node(),
            boot_id=_boot_id(),
            process_id=process.pid,
            process_started=process.create_time(),
        )

    @property
    def on_this_machine(self) -> bool:
        """Whether its process ran here, since this machine's last start or before it."""
        return self.host == platform.node()

    @property
    def alive(self) -> bool:
        """Whether its process, which was of this machine, still runs."""
        if self.boot_id != _boot_id() or not psutil.pid_exists(self.process_id):
            return False
        try:
            process = psutil.Process(self.process_id)
            started, ended = process.create_time(), process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        # Else the number was given to another process since.
        return not ended and abs(started - self.process_started) < 1.0

    def to_bytes(self) -> bytes:
        """Return the file."""
        return self.model_dump_json().encode()


class Lease:
    """A lease that this process holds; a thread keeps its beat."""

    def __init__(self, store: Store, number: int, record: LeaseRecord) -> None:
        """Start to beat; `release` ends it."""
        self.store = store
        self.number = number
        self.record = record
        self.lost = False
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def confirm(self) -> None:
        """Look whether another run has taken over; `Unfinished` if so."""
        self.lost = self.lost or not self._holds()
        self.check()

    def check(self) -> None:
        """Raise `Unfinished` if another run is known to have taken over."""
        if self.lost:
            raise Unfinished(
                f"Another run has taken over {printable(self.store.uri)}, since this one did not "
                "move for a while. What is done is kept, and the other one goes on with it."
            )

    def release(self) -> None:
        """Stop to beat and give the lease back."""
        self._released.set()
        self._thread.join()
        if not self.lost and self._holds():
            self._write(self.record.model_copy(update={"released": True}))

    def _holds(self) -> bool:
        found = holder(self.store)
        return found is not None and found.owner == self.record.owner

    def _write(self, record: LeaseRecord) -> None:
        self.record = record
        self.store.write(LeasedRun.lease(self.number), record.to_bytes())

    def _keep(self) -> None:
        while not self._released.wait(BEAT_INTERVAL_S):
            try:
                if not self._holds():
                    self.lost = True
                    return
                self._write(self.record.model_copy(update={"beat": self.record.beat + 1}))
            except (OSError, CifarRayError):
                # A store that fails for a while: the run itself finds out and says so.
                continue


@contextmanager
def hold(store: Store) -> Iterator[Lease]:
    """Hold DEST's lease for a block; `InputError` if another run works on DEST."""
    lease = acquire(store)
    try:
        yield lease
    finally:
        lease.release()


def acquire(store: Store) -> Lease:
    """Take DEST's lease; `InputError` if another run works on DEST."""
    record = LeaseRecord.of_this_process()
    number = _highest(store)
    if number is not None:
        _wait_for_end(store, number)
    following = (number or 0) + 1
    if not store.create(LeasedRun.lease(following), record.to_bytes()):
        raise _refusal(store, _read(store, following))
    for older in _numbers(store):
        if older < following:
            store.delete(LeasedRun.lease(older))
    return Lease(store, following, record)


def holder(store: Store) -> LeaseRecord | None:
    """Return who holds DEST's lease; None if nobody does."""
    number = _highest(store)
    found = None if number is None else _read(store, number)
    return None if found is None or found.released else found


def _wait_for_end(store: Store, number: int) -> None:
    """Return when the lease's owner is known to be gone; raise `InputError` if it lives."""
    found = _read(store, number)
    if found is None or found.released:
        return
    if found.on_this_machine:
        if found.alive:
            raise _refusal(store, found)
        return
    deadline = time.monotonic() + STANDSTILL_S
    while time.monotonic() < deadline:
        time.sleep(LOOK_INTERVAL_S)
        now = _read(store, number)
        if now is None or now.released:
            return
        if now.beat != found.beat:
            raise _refusal(store, now)


def _refusal(store: Store, found: LeaseRecord | None) -> InputError:
    who = (
        "Another run" if found is None else f"Process {found.process_id} on {printable(found.host)}"
    )
    return InputError(
        f"{who} works on --out {printable(store.uri)} already. Let it finish, or end it and give "
        "the command again: it goes on from there."
    )


def _numbers(store: Store) -> list[int]:
    stems = (Path(name).stem for name in store.names(LeasedRun.LEASE))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def _highest(store: Store) -> int | None:
    return max(_numbers(store), default=None)


def _read(store: Store, number: int) -> LeaseRecord | None:
    try:
        return LeaseRecord.model_validate_json(store.read(LeasedRun.lease(number)))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise InputError(
            f"{printable(store.uri)}/{LeasedRun.lease(number)} is damaged. If no other run "
            "works there, delete it and give the command again."
        ) from error


def _boot_id() -> str:
    """Return what tells this start of the machine from earlier ones."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{os.name}-{psutil.boot_time():.0f}"
