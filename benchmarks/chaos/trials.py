"""A trial: a fresh run that is killed at chosen places, finished without further kills, judged."""

import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_ray.runs import LabellingRun
from cifar_ray.storage import Store, open_store

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
IMAGES_PER_SHARD = 8
NUM_SHARDS = 8
KILLED = -9
SHARDS_OPEN = 4
OUR_FAULT = "Unexpected error"
"""What the command says, and then ends with 1."""
EQUAL = "equal"


class Token(NamedTuple):
    """Where a process is to be killed: at a call of a stage, counted from its start."""

    stage: str
    victim: str
    call: int


class Kill(NamedTuple):
    """A kill that happened, and how the run that it hit ended after all."""

    stage: str
    victim: str
    call: int
    parts: int
    verdict: str


@dataclass(frozen=True)
class Laboratory:
    """Images, an engine, and what an undisturbed run gave."""

    images: str
    place: str
    """Below which each trial has a DEST of its own."""
    room: Path
    engine: str
    expected: dict[str, bytes]
    plant: str | None = None

    def trial(self, number: int, runs: Iterable[list[Token]]) -> list[Kill]:
        """Label one DEST in as many runs, each with its kills, and judge it."""
        out = f"{self.place}/trial-{number}"
        tokens = self.room / "tokens"
        taken: list[tuple[Token, int]] = []
        faults: list[str] = []
        for run in runs:
            shutil.rmtree(tokens, ignore_errors=True)
            tokens.mkdir()
            for token in run:
                (tokens / ".".join(map(str, token))).touch()
            done = self.label(out, tokens)
            now = took(tokens, faults)
            lost_raylet = any(token.victim == "raylet" for token, _ in now)
            if not (ended_without_raylet(done) if lost_raylet else done.returncode in (0, KILLED)):
                faults.append(ended(done))
            taken += now
            faults += half_parts(open_store(out))
        shutil.rmtree(tokens)
        tokens.mkdir()
        done = self.label(out, tokens)
        if done.returncode:
            faults.append(ended(done))
        verdict = faults[0] if faults else self.judge(out)
        if not taken and verdict != EQUAL:
            raise RuntimeError(f"nobody was killed, and yet: {verdict}")
        shutil.rmtree(out, ignore_errors=True)  # In a bucket it may stay.
        return [Kill(*token, parts, verdict) for token, parts in taken]

    def label(self, out: str, tokens: Path | None) -> "subprocess.CompletedProcess[str]":
        """Run the command with these tokens."""
        command = [
            *(sys.executable, "-m", "cifar_ray", "predict", self.images, "--out", out),
            *("--engine", self.engine, "--workers", "1", "--max-failure-rate", "1"),
            *("--images-per-shard", str(IMAGES_PER_SHARD)),
        ]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        if tokens is not None:
            environment["PYTHONPATH"] = os.pathsep.join((str(HERE), str(REPOSITORY)))
            environment["CHAOS_TOKENS"], environment["CHAOS_DEST"] = str(tokens), out
            if self.plant is not None:
                environment["CHAOS_PLANT"] = self.plant
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def judge(self, out: str) -> str:
        """Return `equal`, or what differs between a finished run and an undisturbed one."""
        found = parts(open_store(out))
        if set(found) != set(self.expected):
            lost, strange = set(self.expected) - set(found), set(found) - set(self.expected)
            return f"{len(lost)} parts lost, {len(strange)} strange"
        keys, expected = keys_of(found), keys_of(self.expected)
        if keys != expected:
            return f"{(expected - keys).total()} rows lost, {(keys - expected).total()} doubled"
        changed = [name for name, data in self.expected.items() if found[name] != data]
        if changed:
            return f"other bytes in {len(changed)} parts"
        verified = subprocess.run(
            [sys.executable, "-m", "cifar_ray", "verify", out],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        return EQUAL if verified.returncode == 0 else f"verify: {ended(verified)}"


def took(tokens: Path, faults: list[str]) -> list[tuple[Token, int]]:
    """Return the kills that count, with the parts present; add what was wrong at that moment.

    A kill before the first key was listed is none.
    """
    found = []
    names = [path.name for path in tokens.iterdir() if path.name.startswith("taken.")]
    for name in sorted(names):
        _, stage, victim, call, chunks, num_parts, num_half = name.split(".")
        if int(num_half):
            faults.append(f"{num_half} half parts when the {victim} died")
        if stage == "listing" or int(chunks):
            found.append((Token(stage, victim, int(call)), int(num_parts)))
    return found


def parts(store: Store) -> dict[str, bytes]:
    """Return the files that a reader of `predictions/` finds."""
    folder = LabellingRun.PREDICTIONS
    return {name: store.read(f"{folder}/{name}") for name in store.names(folder)}


def keys_of(found: dict[str, bytes]) -> Counter[str]:
    """Return how many rows each key has."""
    return Counter(
        key
        for data in found.values()
        for key in pq.read_table(pa.BufferReader(data), columns=["key"])["key"].to_pylist()
    )


def half_parts(store: Store) -> list[str]:
    """Return what a reader of `predictions/` would stumble over."""
    bad = []
    for name, data in parts(store).items():
        try:
            pq.read_table(pa.BufferReader(data))
        except (pa.ArrowException, OSError):
            bad.append(f"half a part: {name}")
    return bad


def ended_without_raylet(done: "subprocess.CompletedProcess[str]") -> bool:
    """Tell whether a driver whose raylet was killed ended as it may.

    Ray's C++ ends one that just writes to its raylet at once, with 1 and without a word.
    """
    by_ray = done.returncode == 1 and OUR_FAULT not in done.stderr
    return by_ray or done.returncode in (0, SHARDS_OPEN)


def ended(done: "subprocess.CompletedProcess[str]") -> str:
    """Return an exit code and the last thing that was said."""
    said = done.stderr.strip().splitlines() or [""]
    return f"ended with {done.returncode}: {said[-1][:200]}"


def local_runs(chance: random.Random) -> list[list[Token]]:
    """Return the runs of a trial of the local engine, from the first listed key to the receipt.

    A shard may take no more than two workers with it, so that no run has more kills of them.
    """
    first = chance.randint(1, 4)
    second = chance.randint(1, NUM_SHARDS - first)
    return [
        [Token("listing", "driver", first)],
        [Token("listing", "driver", second)],
        [*worker_kills(chance), Token("classifying", "driver", chance.randint(10, 18))],
        [*worker_kills(chance), Token("sealing", "driver", chance.randint(1, NUM_SHARDS + 3))],
        [Token("writing", "driver", chance.randint(2, 5))],
    ]


def worker_kills(chance: random.Random) -> list[Token]:
    """Return two kills of workers, in two stages."""
    latest = {"fetching": 12, "classifying": 2, "writing": 2}
    stages = chance.sample(sorted(latest), 2)
    return [Token(stage, "worker", chance.randint(1, latest[stage])) for stage in stages]


def ray_runs(chance: random.Random) -> list[list[Token]]:
    """Return the runs of a trial on Ray, where workers list as well.

    Ray replaces a worker within the run, so that each run ends by the death of its driver.
    """
    return [
        [
            Token("listing", "worker", chance.randint(1, NUM_SHARDS)),
            *worker_kills(chance),
            Token("classifying", "driver", chance.randint(4, 9)),
        ],
        [*worker_kills(chance), Token("sealing", "driver", chance.randint(1, NUM_SHARDS + 3))],
        [Token("writing", "driver", chance.randint(2, 5))],
    ]


def raylet_runs(chance: random.Random) -> list[list[Token]]:
    """Return the runs of a trial whose raylet is killed, once early and once later."""
    return [[Token("classifying", "raylet", chance.randint(1, 3))] for _ in range(2)]
