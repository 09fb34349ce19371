"""WebDataset's tar shards: an image, and its label beside it under the same name.

A sample is all members whose names are the same up to the first dot: `0001.jpg` with `0001.cls`,
which holds a number or a name, or with `0001.json`, whose field `label` or `cls` does, or with
`0001.txt`, which holds a name. Nothing is unpacked: an image is read where it lies in the archive.
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from cifar_ray.errors import InputError, printable
from cifar_ray.training.data.bucket import File, TarMember

IMAGE_KINDS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm"})
LABEL_KINDS = ("cls", "json", "txt")
"""In the order in which they are believed: a `.txt` may be a caption."""
JSON_FIELDS = ("label", "cls")
MAX_LABEL_BYTES = 2**20
MAX_SHOWN = 10
_ZEROS = bytes(tarfile.BLOCKSIZE)
MAX_PADDING_BLOCKS = 2048
"""Zeros behind the end mark, beyond which no second archive is looked for."""


@dataclass(slots=True)
class _Sample:
    images: list[TarMember] = field(default_factory=list)
    labels: dict[str, int | str] = field(default_factory=dict)
    """By the kind of the member that holds it."""

    def fault(self) -> str:
        """Say what is wrong with it, or nothing."""
        if not self.labels:
            return "has no label beside it, .cls, .json or .txt"
        if len(self.images) != 1:
            return f"has {len(self.images)} images"
        return ""


def read_tars(files: Sequence[File]) -> tuple[list[TarMember], list[int | str]]:
    """Return the images of shards as they lie in them, and their labels.

    Labels are all numbers, or else all text. Raises `InputError` that names samples without an
    image or a label, and archives that are damaged.
    """
    images: list[TarMember] = []
    labels: list[int | str] = []
    faults: list[str] = []
    for file in files:
        for key, sample in _samples(file).items():
            fault = sample.fault()
            if fault:
                faults.append(f"{file}, {printable(key)} {fault}")
                continue
            images += sample.images
            labels.append(next(sample.labels[k] for k in LABEL_KINDS if k in sample.labels))
    if faults:
        more = f"\n  … and {len(faults) - MAX_SHOWN} more" if len(faults) > MAX_SHOWN else ""
        raise InputError(
            f"{len(faults)} samples of DATA cannot be used; remove or mend them:\n  "
            + "\n  ".join(faults[:MAX_SHOWN])
            + more
        )
    are_numbers = all(isinstance(label, int) for label in labels)
    return images, labels if are_numbers else [str(label) for label in labels]


def _samples(file: File) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    with file.open("rb") as archive:
        for member in _members(archive, file):
            path = PurePosixPath(member.name)
            stem, _, ending = path.name.partition(".")
            if not member.isreg() or member.issparse() or not stem or not ending:
                continue
            kind = ending.rpartition(".")[2].lower()
            if kind not in IMAGE_KINDS and kind not in LABEL_KINDS:
                continue
            key = (path.parent / stem).as_posix()
            sample = samples.setdefault(key, _Sample())
            if kind in IMAGE_KINDS:
                place = TarMember(file, member.name, member.offset_data, member.size)
                sample.images.append(place)
            elif (label := _label(archive, member, kind, file)) is not None:
                sample.labels[kind] = label
    return samples


def _members(archive: BinaryIO, file: File) -> Iterator[tarfile.TarInfo]:
    """Yield members, of all archives where one is appended to another."""
    start: int | None = 0
    while start is not None:
        archive.seek(start)
        try:
            with tarfile.open(fileobj=archive, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    yield member
                    # The library keeps every header.
                    tar.members.clear()  # type: ignore[attr-defined]
                end = tar.offset
        except tarfile.TarError as error:
            raise InputError(
                f"{file} is no whole tar archive ({error}). DATA's shards are plain .tar files, "
                "not compressed ones."
            ) from error
        start = _next_archive(archive, end, file)


def _next_archive(archive: BinaryIO, end: int, file: File) -> int | None:
    """Return where the archive begins that is appended to the one that ends here, if one is."""
    archive.seek(end)
    if archive.read(tarfile.BLOCKSIZE) != _ZEROS:
        # The library takes an archive that was cut between two members for a whole one.
        raise InputError(f"{file} is no whole tar archive: it ends before its end mark.")
    for _ in range(MAX_PADDING_BLOCKS):
        block = archive.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            return None
        if block != _ZEROS:
            return archive.tell() - tarfile.BLOCKSIZE
    return None


def _label(archive: BinaryIO, member: tarfile.TarInfo, kind: str, file: File) -> int | str | None:
    """Return the label that a member holds; None for JSON that has none."""
    if member.size > MAX_LABEL_BYTES:
        return None
    archive.seek(member.offset_data)
    content = archive.read(member.size)
    try:
        if kind == "json":
            return _label_in(json.loads(content))
        text = content.decode().strip()
    except ValueError as error:
        raise InputError(f"{file}, {printable(member.name)}: {error}.") from error
    if kind == "cls" and text.isascii() and text.isdigit():
        return int(text)
    return text or None


def _label_in(content: object) -> int | str | None:
    if not isinstance(content, dict):
        return None
    found = (content.get(name) for name in JSON_FIELDS)
    return next((v for v in found if isinstance(v, int | str) and not isinstance(v, bool)), None)
