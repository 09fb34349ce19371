"""Kills labelling runs, and looks whether anything was lost: `python -m benchmarks.chaos`.

A trial is a fresh run over the same images. Drivers and workers are killed by SIGKILL at random
calls of each stage, several to a trial; then the same command finishes the run without further
kills. Afterwards parts must be those of an undisturbed run, byte for byte, and `verify` must find
nothing; and whatever lies in `predictions/` after a killed run must be whole parts.
A row a kill: stage, victim, call, parts present, verdict. Exit code 1 if any verdict is not
`equal`, or a stage has fewer than a tenth of them. With `--plants`, each fault of `plants.py` is
planted in turn, and must not be `equal`.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from benchmarks.chaos.laboratory import laboratory
from benchmarks.chaos.plants import KILL_FOR
from benchmarks.chaos.sitecustomize import STAGES
from benchmarks.chaos.trials import (
    EQUAL,
    Kill,
    Laboratory,
    Token,
    local_runs,
    ray_runs,
    raylet_runs,
)

RUNS = {"local": local_runs, "ray": ray_runs}


def kill(
    laboratory: Laboratory,
    runs_of: Callable[[random.Random], list[list[Token]]],
    number: int,
    seed: int,
) -> list[Kill]:
    """Kill at least so many processes, and say so as they fall."""
    chance = random.Random(seed)
    kills: list[Kill] = []
    trial = 0
    while len(kills) < number:
        for one in laboratory.trial(trial, runs_of(chance)):
            kills.append(one)
            print(len(kills), *one, sep=" | ", flush=True)
        trial += 1
    return kills


def show(console: Console, kills: list[Kill], what: str, stages: Iterable[str]) -> int:
    """Print the kills by stage; return the exit code."""
    table = Table("stage", "victim", "kills", "equal")
    places = Counter((kill.stage, kill.victim) for kill in kills)
    equal = Counter((kill.stage, kill.victim) for kill in kills if kill.verdict == EQUAL)
    for place, number in sorted(places.items()):
        table.add_row(*place, str(number), str(equal[place]))
    console.print(table)
    console.print(f"{len(kills)} kills of {what}; {len(kills) - equal.total()} not equal.")
    of_stage = Counter(kill.stage for kill in kills)
    scarce = [stage for stage in stages if of_stage[stage] < len(kills) // 10]
    if scarce:
        console.print(f"Fewer than a tenth of them: {', '.join(scarce)}.")
    return 1 if scarce or equal.total() < len(kills) else 0


def plant_each(laboratory: Laboratory) -> int:
    """Plant each fault; return 1 if one of them goes unseen."""
    unseen = 0
    for number, (plant, token) in enumerate(KILL_FOR.items()):
        planted = replace(laboratory, plant=plant)
        verdicts = {kill.verdict for kill in planted.trial(number, [[Token(*token)]])}
        unseen += not verdicts or EQUAL in verdicts
        print(plant, ", ".join(verdicts) or "nobody was killed", sep=" | ", flush=True)
    return 1 if unseen else 0


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="at least so many")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--store", choices=["folder", "s3"], default="folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--raylets", action="store_true", help="with --engine ray: kill raylets, and nothing else"
    )
    parser.add_argument("--plants", action="store_true", help="plant faults instead")
    options = parser.parse_args()
    if options.raylets and options.engine != "ray":
        parser.error("--raylets goes with --engine ray")
    with laboratory(options.store, options.engine) as ready:
        if options.plants:
            return plant_each(ready)
        runs = raylet_runs if options.raylets else RUNS[options.engine]
        kills = kill(ready, runs, options.kills, options.seed)
    stages = () if options.raylets else STAGES
    return show(Console(), kills, f"the {options.engine} engine, {options.store}", stages)


if __name__ == "__main__":
    sys.exit(main())
