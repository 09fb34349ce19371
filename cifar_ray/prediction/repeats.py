"""How many images are listed more than once: exactly, in memory that does not grow with them.

Digests of all keys are spread over files by their first byte, so that equal ones meet in one file,
and each file is looked at by itself: 16 bytes of disk a key, and a 128th of that in memory.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import BinaryIO

import numpy as np

from cifar_ray.config.labelling import RunRecord
from cifar_ray.prediction.manifest import Manifest
from cifar_ray.runs import ShardName

DIGEST = np.dtype([("high", "<u8"), ("low", "<u8")])
NUM_FILES = 128
"""Open at a time; macOS allows 256."""


def count_repeated(manifest: Manifest, record: RunRecord, names: Iterable[ShardName]) -> int:
    """Return how many rows of these shards have a key that an earlier row has too."""
    if record.source.ordered:
        return 0
    return num_repeated(key for name in names for key in manifest.keys(name))


def num_repeated(keys: Iterable[str]) -> int:
    """Return how many of the keys came before."""
    with tempfile.TemporaryDirectory(prefix="cifar-ray-keys-") as folder:
        paths = [os.path.join(folder, str(number)) for number in range(NUM_FILES)]
        with ExitStack() as stack:
            files = [stack.enter_context(open(path, "wb")) for path in paths]
            _spread(keys, files)
        return sum(_num_repeated_in(path) for path in paths)


def _spread(keys: Iterable[str], files: Sequence[BinaryIO]) -> None:
    for key in keys:
        digest = hashlib.blake2b(key.encode(), digest_size=DIGEST.itemsize).digest()
        files[digest[0] % NUM_FILES].write(digest)


def _num_repeated_in(path: str) -> int:
    digests = np.fromfile(path, dtype=DIGEST)
    return len(digests) - len(np.unique(digests))
