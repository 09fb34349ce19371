"""The chaos harness in its short form, and proof that it sees what it is for."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.chaos.laboratory import laboratory
from benchmarks.chaos.plants import KILL_FOR
from benchmarks.chaos.trials import EQUAL, Laboratory, Token


@pytest.fixture(scope="module")
def ready() -> Iterator[Laboratory]:
    with laboratory("folder", "local") as ready:
        yield ready


def test_a_run_killed_in_every_stage_has_the_bytes_of_an_undisturbed_one(ready: Laboratory) -> None:
    runs = [
        [Token("listing", "driver", 3)],
        [
            Token("fetching", "worker", 4),
            Token("writing", "worker", 1),
            Token("sealing", "driver", 6),
        ],
    ]
    kills = ready.trial(0, runs)
    assert {kill.stage for kill in kills} == {"listing", "fetching", "writing", "sealing"}
    assert {kill.verdict for kill in kills} == {EQUAL}


@pytest.mark.parametrize(
    "plant",
    [
        name if name == "lost-image" else pytest.param(name, marks=pytest.mark.slow)
        for name in KILL_FOR
    ],
)
def test_a_planted_fault_is_seen(plant: str, ready: Laboratory) -> None:
    kills = replace(ready, plant=plant).trial(1, [[Token(*KILL_FOR[plant])]])
    assert kills
    assert EQUAL not in {kill.verdict for kill in kills}
