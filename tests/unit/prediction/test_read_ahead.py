import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cifar_ray.errors import ImageFault
from cifar_ray.prediction.read_ahead import reads_ahead
from cifar_ray.prediction.sources import Entry

ENTRIES = [Entry(f"{number:02}", "v", 10) for number in range(20)]


class Recorder:
    """A store that keeps its readers waiting until the test lets them go."""

    parallel_reads = 8

    def __init__(self) -> None:
        self.started: list[str] = []
        self.go = threading.Event()

    def fetch(self, entry: Entry) -> bytes:
        self.started.append(entry.key)
        assert self.go.wait(60)
        if entry.key == "03":
            raise ImageFault("not_found", "gone")
        return entry.key.encode()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_images_come_in_order_and_faults_where_they_belong(threads: ThreadPoolExecutor) -> None:
    store = Recorder()
    store.go.set()
    found = []
    for read in reads_ahead(store, ENTRIES, threads, num_ahead=8, max_bytes=10**6):
        try:
            found.append(read().decode())
        except ImageFault as fault:
            found.append(fault.status)
    assert found == ["00", "01", "02", "not_found", *(f"{n:02}" for n in range(4, 20))]


@pytest.mark.parametrize(("num_ahead", "max_bytes", "expected"), [(5, 10**6, 5), (8, 35, 3)])
def test_no_more_is_under_way_than_allowed(
    threads: ThreadPoolExecutor, num_ahead: int, max_bytes: int, expected: int
) -> None:
    store = Recorder()
    ahead = reads_ahead(store, ENTRIES, threads, num_ahead, max_bytes)
    read = next(ahead)
    store.go.set()
    read()
    threads.shutdown()
    assert len(store.started) == expected


def test_an_image_that_is_larger_than_all_that_is_allowed_is_read_alone(
    threads: ThreadPoolExecutor,
) -> None:
    store = Recorder()
    store.go.set()
    entries = [Entry("large", "v", 10**9), *ENTRIES[:2]]
    found = [read() for read in reads_ahead(store, entries, threads, 8, 100)]
    assert found == [b"large", b"00", b"01"]
