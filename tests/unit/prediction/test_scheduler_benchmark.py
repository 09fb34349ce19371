"""The scheduler without work: every shard comes back once, and none is remembered."""

import pytest

from benchmarks.scheduler import simulate
from tests.conftest import REPOSITORY

NUM_SHARDS = 20_000
MAX_KIB = 0.2
"""Of the driver's memory a shard: a name and a counter that somebody kept would take more."""


def test_a_driver_s_memory_does_not_grow_with_the_shards_that_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # From where the benchmark's worker is found.
    monkeypatch.chdir(REPOSITORY)
    # It fails unless each shard came back.
    result = simulate("local", NUM_SHARDS, num_workers=2)
    assert result.samples[-1].shards == NUM_SHARDS
    assert result.kib_a_shard < MAX_KIB
