"""Kills labelling runs, and looks whether anything was lost: `python -m benchmarks.chaos`.

A trial is a fresh run over the same images. A driver or worker is killed by SIGKILL, once or a few
times, each at a random call of a stage; then the same command finishes the run without further
kills. Afterwards parts must be those of an undisturbed run, byte for byte, and `verify` must find
nothing; and whatever lies in `predictions/` at the moment of a kill must be whole parts.
A row a kill: victim, stage, parts present, verdict. Exit code 1 if any verdict is not `equal`.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from tests.drawing import draw_folder

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
IMAGES = 60
IMAGES_PER_SHARD = 8
# Stage and victim; how many calls of it a run has at least, so that a token is surely taken.
PLACES = {
    ("listing", "driver"): 7,
    ("fetching", "worker"): 25,
    ("classifying", "worker"): 3,
    ("writing", "worker"): 3,
    ("writing", "driver"): 6,
    ("sealing", "driver"): 10,
}


@dataclass(frozen=True)
class Kill:
    stage: str
    victim: str
    call: int
    parts: int
    verdict: str


def command(images: Path, out: Path, engine: str) -> list[str]:
    return [
        *(sys.executable, "-m", "cifar_ray", "predict", str(images), "--out", str(out)),
        *("--engine", engine, "--workers", "1", "--max-failure-rate", "1"),
        *("--images-per-shard", str(IMAGES_PER_SHARD)),
    ]


def label(images: Path, out: Path, engine: str, tokens: Path | None) -> int:
    """Run the command with these tokens and return its exit code; negative for a signal."""
    path = [str(REPOSITORY)] if tokens is None else [str(HERE), str(REPOSITORY)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    if tokens is not None:
        environment["CHAOS_TOKENS"] = str(tokens)
    done = subprocess.run(
        command(images, out, engine), env=environment, capture_output=True, text=True
    )
    if tokens is None and done.returncode:
        raise SystemExit(f"an undisturbed run ended with {done.returncode}:\n{done.stderr}")
    return done.returncode


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "predictions").glob("*"))}


def half_files(out: Path) -> list[str]:
    """Return what a reader of `predictions/` would stumble over."""
    bad = []
    for path in sorted((out / "predictions").glob("*")):
        try:
            pq.read_table(path)
        except (pa.ArrowException, OSError):
            bad.append(path.name)
    return bad


def verdict(out: Path, expected: dict[str, bytes]) -> str:
    """Return `equal`, or what differs between a finished run and an undisturbed one."""
    found = parts(out)
    if set(found) != set(expected):
        lost, strange = set(expected) - set(found), set(found) - set(expected)
        return f"{len(lost)} parts lost, {len(strange)} strange"
    keys = Counter(
        key
        for part in (out / "predictions").glob("*")
        for key in pq.read_table(part)["key"].to_pylist()
    )
    if max(keys.values()) > 1:
        return "rows doubled"
    changed = [name for name, data in expected.items() if found[name] != data]
    if changed:
        return f"other bytes in {len(changed)} parts"
    verified = subprocess.run(
        [sys.executable, "-m", "cifar_ray", "verify", str(out)], capture_output=True, text=True
    )
    return "equal" if verified.returncode == 0 else f"verify: {verified.stderr.strip()}"


def trial(
    images: Path,
    room: Path,
    expected: dict[str, bytes],
    chosen: list[tuple[str, str, int]],
    engine: str,
) -> list[Kill]:
    """Kill a fresh run at the chosen places, one after another, finish it, and judge it."""
    out, tokens = room / "out", room / "tokens"
    for folder in (out, tokens):
        shutil.rmtree(folder, ignore_errors=True)
    tokens.mkdir()
    kills, half = [], []
    for stage, victim, call in chosen:
        (tokens / f"{stage}.{victim}.{call}").touch()
        label(images, out, engine, tokens)
        taken = [path for path in tokens.iterdir() if path.name.startswith("taken.")]
        half += half_files(out)
        if taken:
            kills.append((stage, victim, call, len(parts(out))))
        for path in tokens.iterdir():
            path.unlink()
    label(images, out, engine, None)
    found = f"half a part: {half[0]}" if half else verdict(out, expected)
    return [Kill(*kill, found) for kill in kills]


def choose(random_: random.Random, number: int) -> list[list[tuple[str, str, int]]]:
    """Return trials with at least so many kills, all places alike, one to three kills a trial."""
    places = [
        (stage, victim, random_.randint(1, calls))
        for _ in range(-(-number // len(PLACES)))
        for (stage, victim), calls in PLACES.items()
    ]
    random_.shuffle(places)
    trials = []
    while places:
        size = random_.randint(1, 3)
        trials.append(places[:size])
        places = places[size:]
    return trials


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="at least so many")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    console = Console()
    table = Table("kill", "victim", "stage", "call", "parts present", "verdict")
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        room = Path(folder)
        images = room / "images"
        draw_folder(images, count=IMAGES)
        (images / "empty.jpg").write_bytes(b"")
        label(images, room / "whole", options.engine, None)
        expected = parts(room / "whole")
        kills: list[Kill] = []
        for chosen in choose(random.Random(options.seed), options.kills):
            for kill in trial(images, room, expected, chosen, options.engine):
                kills.append(kill)
                row = (kill.victim, kill.stage, str(kill.call), str(kill.parts), kill.verdict)
                table.add_row(str(len(kills)), *row)
                print(len(kills), *row, flush=True)
    console.print(table)
    by_stage = Counter((kill.stage, kill.victim) for kill in kills)
    for (stage, victim), number in sorted(by_stage.items()):
        console.print(f"{stage}, {victim}: {number} kills")
    bad = [kill for kill in kills if kill.verdict != "equal"]
    console.print(f"{len(kills)} kills of the {options.engine} engine; {len(bad)} not equal.")
    return 1 if bad or not kills else 0


if __name__ == "__main__":
    sys.exit(main())
