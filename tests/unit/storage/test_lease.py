"""The lease of a DEST, with real processes that hold it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cifar_ray.errors import InputError, Unfinished
from cifar_ray.runs import LabellingRun
from cifar_ray.storage import FolderStore, lease
from cifar_ray.storage.lease import LeaseRecord, acquire, hold, holder

HOLDER = """
import sys
from pathlib import Path
from cifar_ray.storage.lease import acquire
from cifar_ray.storage import FolderStore
lease = acquire(FolderStore(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
lease.release()
"""


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


@pytest.fixture
def other(store: FolderStore) -> Iterator["subprocess.Popen[str]"]:
    """A process of this machine that holds the lease until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, store.uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def elsewhere(beat: int = 0) -> LeaseRecord:
    here = LeaseRecord.of_this_process()
    return here.model_copy(update={"host": "elsewhere", "beat": beat})


def test_a_lease_is_there_while_it_is_held_and_gone_afterwards(store: FolderStore) -> None:
    with hold(store):
        found = holder(store)
        assert found is not None
        assert found.process_id == psutil.Process().pid
    assert holder(store) is None


def test_a_second_run_is_refused_while_the_first_one_lives(
    store: FolderStore, other: "subprocess.Popen[str]"
) -> None:
    with pytest.raises(InputError, match=f"Process {other.pid} .* works on"):
        acquire(store)
    other.communicate()
    acquire(store).release()


def test_a_killed_process_is_followed_at_once(
    store: FolderStore, other: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    other.kill()
    other.wait()
    assert holder(store) is not None
    # Nobody waits for a process of this machine that is gone.
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: pytest.fail("waited"))
    acquire(store).release()


def test_a_process_number_given_to_another_process_since_holds_nothing(store: FolderStore) -> None:
    here = LeaseRecord.of_this_process()
    older = here.model_copy(update={"process_started": here.process_started - 100})
    store.write(LabellingRun.lease(1), older.to_bytes())
    taken = acquire(store)
    assert taken.number == 2
    taken.release()


def test_another_machine_that_beats_is_left_alone_and_one_that_stands_still_is_followed(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = LabellingRun.lease(7)
    store.write(name, elsewhere().to_bytes())
    monkeypatch.setattr(lease, "LOOK_INTERVAL_S", 0.0)

    def beats(seconds: float) -> None:
        store.write(name, elsewhere(beat=1).to_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(lease.time, "sleep", beats)
        with pytest.raises(InputError, match="on elsewhere works on"):
            acquire(store)
    monkeypatch.setattr(lease, "STANDSTILL_S", 0.05)
    taken = acquire(store)
    assert taken.number == 8
    assert store.names(LabellingRun.LEASE) == ["0000008.json"]
    taken.release()


def test_of_two_that_reach_for_the_same_lease_one_wins(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = acquire(store)
    # The second one looked before the first one had written.
    monkeypatch.setattr(lease, "_highest", lambda store: None)
    with pytest.raises(InputError, match="works on"):
        acquire(store)
    monkeypatch.undo()
    first.release()


def test_a_driver_that_was_overtaken_notices(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_INTERVAL_S", 0.01)
    paused = acquire(store)
    successor = elsewhere()
    store.write(LabellingRun.lease(paused.number + 1), successor.to_bytes())
    paused._thread.join()
    with pytest.raises(Unfinished, match="taken over"):
        paused.check()
    paused.release()
    assert holder(store) == successor


def test_a_driver_that_wakes_beside_a_third_run_does_not_take_its_lease_for_its_own(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STANDSTILL_S", 0.0)
    monkeypatch.setattr(lease, "BEAT_INTERVAL_S", 100.0)
    store.write(LabellingRun.lease(1), elsewhere().to_bytes())
    paused = lease.Lease(store, 1, elsewhere())
    acquire(store).release()
    third = acquire(store)
    with pytest.raises(Unfinished, match="taken over"):
        paused.confirm()
    paused.lost = False
    paused.release()
    found = holder(store)
    assert found is not None
    assert found.owner == third.record.owner
    third.confirm()
    third.release()
    assert holder(store) is None
