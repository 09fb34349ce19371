"""A search's folder: taken up if it holds the same search, refused if it holds another."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from cifar_ray.config.search import SearchSpec, check_search
from cifar_ray.config.training import TOLD
from cifar_ray.errors import InputError, printable
from cifar_ray.models import registry
from cifar_ray.runs import SearchRun
from cifar_ray.storage.folder_faults import folder_faults
from cifar_ray.training.pipeline import write_json

FREE_TO_CHANGE = frozenset({"run", "settings", "code_version", "gpus_per_trial"})
"""What may differ from one start of a search to the next."""


def read_search(folder: Path) -> SearchSpec:
    """Return the search that a folder holds; `InputError` if it holds none of this user's."""
    run = SearchRun(folder.expanduser().absolute())
    if not run.spec.is_file():
        raise InputError(
            f"--resume {printable(str(folder))} holds no search. Give the folder that was --out, "
            "or start one with `cifar-ray tune DATA --recipe NAME --space SPACE --out RUN`."
        )
    _refuse_others_folder(run)
    try:
        spec = SearchSpec.model_validate_json(run.spec.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"{printable(str(run.spec))} is not of this version of cifar-ray, or is damaged. "
            "Start again with another --out."
        ) from error
    # The folder may have been moved since.
    return spec.model_copy(update={"run": str(run.folder)})


def open_search(spec: SearchSpec) -> None:
    """Check the search and make its folder, or check that the folder holds this very search.

    Raises `InputError` before anything starts.
    """
    check_search(spec)
    for network in _networks(spec):
        registry.get(network)
    run = SearchRun(Path(spec.run))
    if run.spec.exists():
        _check_same(read_search(run.folder), spec)
        return
    if run.folder.is_dir() and any(run.folder.iterdir()):
        raise InputError(
            f"--out {printable(spec.run)} is not empty and holds no search. Give a new folder."
        )
    with folder_faults(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
        _refuse_others_folder(run)
        write_json(run.spec, spec.model_dump(mode="json"))


@contextmanager
def hold_search(run: SearchRun) -> Iterator[None]:
    """Be the only process that works on this search; `InputError` if there is another."""
    lock = FileLock(run.lock, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"Another process is searching in {printable(str(run.folder))}. Wait for its end."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _networks(spec: SearchSpec) -> list[str]:
    field = spec.space.fields.get("network")
    names = field.probes() if field is not None else [spec.config.network]
    return [str(name) for name in names]


def _refuse_others_folder(run: SearchRun) -> None:
    """Work only in a folder that nobody else can prepare: Ray Tune keeps pickled state there."""
    if hasattr(os, "getuid") and run.folder.stat().st_uid != os.getuid():
        raise InputError(
            f"{printable(str(run.folder))} belongs to another user. A search goes on only in a "
            "folder of your own: copy it, or start with another --out."
        )


def _check_same(there: SearchSpec, now: SearchSpec) -> None:
    old, new = (s.model_dump(mode="json", exclude={"config": set(TOLD)}) for s in (there, now))
    differences = [
        f"{name}: there {printable(str(old[name]))}, now {printable(str(new[name]))}"
        for name in old
        if name not in FREE_TO_CHANGE and old[name] != new[name]
    ]
    if differences:
        raise InputError(
            f"--out {printable(now.run)} holds another search, which differs in\n  "
            + "\n  ".join(differences)
            + f"\nGo on with it by --resume {printable(now.run)}, or give another --out."
        )
