"""Kills the process that it is in, by SIGKILL, at a chosen call of a chosen stage.

Python imports this module by itself from a folder on PYTHONPATH. `CHAOS_TOKENS` names a folder of
tokens `STAGE.VICTIM.CALL`: the first process of that kind that comes to that call of that stage
takes the token away and dies. So each token kills once, whoever is started again afterwards.
"""

import importlib
import importlib.abc
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

# Where each stage is entered: after the chunk's rows are known, before its file; with the image's
# name known, before its bytes; with a batch decoded, before the model; with a temporary file
# written and synced, before its final name; with every part there, before, amid and after the sums.
STAGES = {
    "listing": [("cifar_ray.prediction.manifest", "Manifest._create")],
    "fetching": [
        ("cifar_ray.prediction.sources.folder_fetch", "FolderFetcher.fetch"),
        ("cifar_ray.prediction.sources.s3_fetch", "S3Fetcher.fetch"),
    ],
    "classifying": [("cifar_ray.prediction.classify", "Classifying._submit")],
    "writing": [
        ("cifar_ray.storage.folder", "_sync_folder"),
        ("cifar_ray.storage.s3", "S3Store.write"),
    ],
    "sealing": [
        ("cifar_ray.prediction.sealing", "_facts"),
        ("cifar_ray.prediction.sealing", "_write_failures"),
        ("cifar_ray.prediction.report", "write_report"),
        ("cifar_ray.prediction.receipt", "seal"),
    ],
}
WORKER_MODULES = ("cifar_ray.prediction.worker", "ray._private.workers.default_worker")
calls: Counter[str] = Counter()


def victim() -> str:
    command = " ".join(sys.orig_argv)
    is_worker = any(name in command or name.split(".")[-1] in command for name in WORKER_MODULES)
    return "worker" if is_worker else "driver"


def die_if_chosen(stage: str) -> None:
    calls[stage] += 1
    folder = Path(os.environ["CHAOS_TOKENS"])
    token = folder / f"{stage}.{victim()}.{calls[stage]}"
    try:
        token.rename(folder / f"taken.{os.getpid()}.{token.name}")
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def wrap(module: ModuleType, path: str, stage: str) -> None:
    *owners, name = path.split(".")
    owner = module
    for part in owners:
        owner = getattr(owner, part)
    function = getattr(owner, name)

    def wrapped(*args: object, **kwargs: object) -> object:
        die_if_chosen(stage)
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


class Finder(importlib.abc.MetaPathFinder):
    """Lets the import system find a module, and wraps its functions once it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        wanted = [
            (function, stage)
            for stage, places in STAGES.items()
            for module, function in places
            if module == name
        ]
        if not wanted:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader.exec_module = self.loading(spec.loader.exec_module, wanted)  # type: ignore[method-assign]
                return spec
        return None

    def loading(self, load: object, wanted: list[tuple[str, str]]) -> object:
        def load_and_wrap(module: ModuleType) -> None:
            load(module)  # type: ignore[operator]
            for function, stage in wanted:
                wrap(module, function, stage)

        return load_and_wrap


if "CHAOS_TOKENS" in os.environ:
    sys.meta_path.insert(0, Finder())
