"""Kills the process that it is in, by SIGKILL, at a chosen call of a chosen stage.

Python imports this module by itself from a folder on PYTHONPATH. `CHAOS_TOKENS` names a folder of
tokens `STAGE.VICTIM.CALL`: the first process of that kind that comes to that call of that stage
takes the token away and dies (a driver may kill its raylet instead). So each token kills once,
whoever is started again afterwards; none kills where the run is complete.
`CHAOS_PLANT` names a fault of `plants.py`, for the harness to find.
"""

import importlib
import importlib.abc
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

# Where each stage is entered: with the chunk's rows known, before its file; with the image's name
# known, before its bytes; with a batch decoded, before the model (a driver: as it takes an event);
# with a temporary file written and synced, before its final name (on S3: with the bytes in hand,
# before the put); with every part there, before, amid and after the sums, and before the receipt.
STAGES = {
    "listing": [("cifar_ray.prediction.manifest", "Manifest._create")],
    "fetching": [
        ("cifar_ray.prediction.sources.folder_fetch", "FolderFetcher.fetch"),
        ("cifar_ray.prediction.sources.s3_fetch", "S3Fetcher.fetch"),
    ],
    "classifying": [
        ("cifar_ray.prediction.classify", "Classifying._submit"),
        ("cifar_ray.prediction.pipeline", "follow"),
    ],
    "writing": [
        ("cifar_ray.storage.folder", "FolderStore._target"),
        ("cifar_ray.storage.s3", "S3Store._put"),
        ("cifar_ray.storage.s3", "S3Store._upload"),
    ],
    "sealing": [
        ("cifar_ray.prediction.sealing", "_facts"),
        ("cifar_ray.prediction.sealing", "_write_failures"),
        ("cifar_ray.prediction.reporting.report", "report_page"),
        ("cifar_ray.prediction.receipt", "seal"),
    ],
}
WORKER_MODULES = ("cifar_ray.prediction.worker", "default_worker.py")
calls: Counter[str] = Counter()


def victim() -> str:
    command = " ".join(sys.orig_argv)
    return "worker" if any(name in command for name in WORKER_MODULES) else "driver"


def kill_if_chosen(stage: str) -> None:
    calls[stage] += 1
    if take_token(stage, victim()):
        os.kill(os.getpid(), signal.SIGKILL)
    # A driver's raylet is its child; the driver sees it go, and has to say so.
    if victim() == "driver" and take_token(stage, "raylet"):
        import psutil

        for process in psutil.Process().children(recursive=True):
            if process.name() == "raylet":
                process.kill()


def take_token(stage: str, kind: str) -> bool:
    """Take the token for a process of that kind, if there is one for this call."""
    folder = Path(os.environ["CHAOS_TOKENS"])
    token = folder / f"{stage}.{kind}.{calls[stage]}"
    if not token.exists():
        return False
    from benchmarks.chaos.trials import half_parts
    from cifar_ray.storage import open_store

    store = open_store(os.environ["CHAOS_DEST"])
    if store.exists("receipt.json"):
        return False
    chunks, parts = len(store.names("_manifest", "shard-")), len(store.names("predictions"))
    try:
        token.rename(folder / f"taken.{token.name}.{chunks}.{parts}.{len(half_parts(store))}")
    except FileNotFoundError:
        return False
    return True


def is_part(arguments: tuple[object, ...]) -> bool:
    return any(isinstance(value, str) and "predictions/" in value for value in arguments)


def wrap(module: ModuleType, path: str, stage: str) -> None:
    *owners, name = path.split(".")
    owner = module
    for part in owners:
        owner = getattr(owner, part)
    function = getattr(owner, name)

    def wrapped(*args: object, **kwargs: object) -> object:
        # Of what a worker writes, the parts matter, not its marks.
        if stage != "writing" or victim() == "driver" or is_part(args):
            kill_if_chosen(stage)
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def changes() -> dict[str, list[tuple[object, tuple[str, ...]]]]:
    """Return what is done to each module once it is loaded: a function, and its arguments."""
    found: dict[str, list[tuple[object, tuple[str, ...]]]] = {}
    if "CHAOS_PLANT" in os.environ:
        import plants  # type: ignore[import-not-found]

        for module, plant in plants.PLANTS[os.environ["CHAOS_PLANT"]]:
            found.setdefault(module, []).append((plant, ()))
    for stage, places in STAGES.items():
        for module, function in places:
            found.setdefault(module, []).append((wrap, (function, stage)))
    return found


class Finder(importlib.abc.MetaPathFinder):
    """Lets the import system find a module, and changes it once it is loaded."""

    def __init__(self) -> None:
        self.changes = changes()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.changes:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader.exec_module = self.loading(  # type: ignore[method-assign, assignment]
                    spec.loader.exec_module, self.changes[name]
                )
                return spec
        return None

    def loading(
        self, load: Callable[[ModuleType], None], changes: list[tuple[object, tuple[str, ...]]]
    ) -> Callable[[ModuleType], None]:
        def load_and_change(module: ModuleType) -> None:
            load(module)
            for change, arguments in changes:
                change(module, *arguments)  # type: ignore[operator]

        return load_and_change


if "CHAOS_TOKENS" in os.environ:
    sys.meta_path.insert(0, Finder())
