"""Faults for the harness to find: what goes wrong where one of the engine's promises is broken.

`PLANTS` names, for each fault, what is done to which modules once they are loaded. They are planted
in the disturbed runs alone, never in the one that these are held against.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_ENOUGH_FOR_A_READER_TO_STUMBLE = 100


def write_under_the_final_name(folder: Any) -> None:
    @contextmanager
    def staged(self: Any, name: str) -> Iterator[Path]:
        with self._temporary() as path:
            yield path
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes()[:_ENOUGH_FOR_A_READER_TO_STUMBLE])
            self._target(name)  # Here a writer may be killed.
            shutil.copyfile(path, target)

    folder.FolderStore.staged = staged


def swap_labels(part: Any) -> None:
    write = part.write_part

    def write_part(store: Any, table: Any, footer: Any) -> None:
        label = table.column_names.index("label")
        values = table["label"].to_pylist()
        field = table.schema.field("label")
        swapped = part.pa.array([*values[1:], values[0]], field.type)
        write(store, table.set_column(label, field, swapped), footer)

    part.write_part = write_part


def lose_an_image_where_a_listing_goes_on(manifest: Any) -> None:
    list_ = manifest.Manifest._list

    def _list(self: Any, name: Any, listing: Any, cursor: str | None) -> Iterator[Any]:
        entries = listing.entries

        def all_but_one(after: str | None) -> Iterator[Any]:
            items: Iterator[Any] = entries(after)
            if after is not None:
                next(items, None)
            return items

        lossy = SimpleNamespace(entries=all_but_one)
        return list_(self, name, lossy, cursor)  # type: ignore[no-any-return]

    manifest.Manifest._list = _list


def list_again_from_the_first_key(manifest: Any) -> None:
    list_ = manifest.Manifest._list

    def _list(self: Any, name: Any, listing: Any, cursor: str | None) -> Iterator[Any]:
        return list_(self, name, listing, None)  # type: ignore[no-any-return]

    manifest.Manifest._list = _list


def forget_what_a_dead_worker_had(local: Any) -> None:
    ended = local.LocalEngine._ended

    def _ended(self: Any, item: Any) -> None:
        if item.worker is None or not item.worker.assigned:
            ended(self, item)
            return
        self.workers.remove(item.worker)
        item.worker.process.wait()
        self._start_worker()

    local.LocalEngine._ended = _ended


def trust_every_part(sealing: Any) -> None:
    sealing.unfit_parts = lambda store, record, manifest: []


def seal_what_is_there(sealing: Any) -> None:
    """The manifest ends where the parts do."""
    sealing.unfit_parts = lambda store, record, manifest: []
    in_parallel = sealing.in_parallel

    def those_with_a_part(look: Any, names: Any) -> Any:
        store = look.args[0]
        there = {path.name for path in (Path(store.root) / "predictions").glob("*")}
        return in_parallel(look, (name for name in names if f"part-{name}.parquet" in there))

    sealing.in_parallel = those_with_a_part


PLANTS = {
    "half-parts": [("cifar_ray.storage.folder", write_under_the_final_name)],
    "swapped-labels": [("cifar_ray.prediction.part", swap_labels)],
    "lost-image": [("cifar_ray.prediction.manifest", lose_an_image_where_a_listing_goes_on)],
    "doubled-images": [("cifar_ray.prediction.manifest", list_again_from_the_first_key)],
    "lost-retry": [
        ("cifar_ray.prediction.local", forget_what_a_dead_worker_had),
        ("cifar_ray.prediction.sealing", trust_every_part),
    ],
    "dropped-shard": [
        ("cifar_ray.prediction.local", forget_what_a_dead_worker_had),
        ("cifar_ray.prediction.sealing", seal_what_is_there),
    ],
}
KILL_FOR = {
    "half-parts": ("writing", "worker", 2),
    "swapped-labels": ("classifying", "worker", 2),
    "lost-image": ("listing", "driver", 3),
    "doubled-images": ("listing", "driver", 3),
    "lost-retry": ("fetching", "worker", 5),
    "dropped-shard": ("fetching", "worker", 5),
}
"""A kill at which each fault must show: stage, victim, call."""
