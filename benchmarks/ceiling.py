"""What the cores can do at most: decoding alone and the model alone, each by the best of several.

`python -m benchmarks.ceiling FOLDER BUNDLE` prints as JSON, for decoding (with resizing) and for
the model: the fastest way, CPU seconds an image, and images/s on all cores. Decoders are called
without anything of ours around them; images are in memory, in as many processes as cores.
"""

import io
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from cifar_ray.config.execution import BackendName, ExecutionRequest
from cifar_ray.config.machine import usable_cores
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.models.backends import Backend, open_backend, resolve_execution
from cifar_ray.models.bundle import Bundle

MAX_IMAGES = 1000
MAX_BYTES = 256 * 2**20
ROUND_S = 2.0
ROUNDS = 3
Decode = Callable[[bytes, int], np.ndarray]


def pillow(data: bytes, side: int) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def pillow_draft(data: bytes, side: int) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (side, side))
        return np.asarray(image.convert("RGB"))


def turbo(data: bytes, side: int) -> np.ndarray:
    pixels: np.ndarray = simplejpeg.decode_jpeg(data)
    return pixels


def turbo_scaled(data: bytes, side: int) -> np.ndarray:
    pixels: np.ndarray = simplejpeg.decode_jpeg(data, min_height=side, min_width=side)
    return pixels


DECODERS: tuple[Decode, ...] = (pillow, pillow_draft, turbo, turbo_scaled)


def read_some(folder: str) -> list[bytes]:
    """Return the first images, as many as fit."""
    found: list[bytes] = []
    for path in sorted(Path(folder).iterdir())[:MAX_IMAGES]:
        found.append(path.read_bytes())
        if sum(map(len, found)) > MAX_BYTES:
            break
    return found


def decode_for(decode: Decode, folder: str, preprocess: Preprocess) -> tuple[int, float, float]:
    """Decode and resize for a while; return images, CPU seconds and wall seconds."""
    files = read_some(folder)
    cpu, wall, number = time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - wall < ROUND_S:
        for data in files[:: max(1, len(files) // 50)]:
            preprocess.apply(decode(data, preprocess.scale_to))
            number += 1
    return number, time.process_time() - cpu, time.perf_counter() - wall


def run_for(backend: Backend, images: np.ndarray) -> tuple[int, float, float]:
    """Keep a backend's streams busy for a while; return the same."""
    waiting = deque([backend.submit(images)])
    cpu, wall, number = time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - wall < ROUND_S:
        while len(waiting) <= backend.num_parallel:
            waiting.append(backend.submit(images))
        backend.result(waiting.popleft())
        number += len(images)
    while waiting:
        backend.result(waiting.popleft())
        number += len(images)
    # The first was submitted before the clocks.
    return number - len(images), time.process_time() - cpu, time.perf_counter() - wall


def backends_of(bundle: Bundle, cores: int) -> dict[str, Backend]:
    side = bundle.spec.preprocess.input_size
    sizes = (64, 256) if side < 128 else (16, 32)
    names: tuple[BackendName, ...] = ("openvino", "torch")
    found = {}
    for name in names:
        for size in sizes:
            request = ExecutionRequest(device="cpu", backend=name, batch_size=size, threads=cores)
            execution = resolve_execution(request, bundle.spec)
            found[f"{name} {execution.precision}, {size} a batch"] = open_backend(bundle, execution)
    return found


def fastest(rounds: dict[str, list[tuple[int, float, float]]]) -> dict[str, object]:
    """Return the way with the least CPU an image in its best round: other work adds to it."""
    cpu_s = {name: min(cpu / number for number, cpu, _ in of) for name, of in rounds.items()}
    name = min(cpu_s, key=lambda way: cpu_s[way])
    rate = max(number / wall for number, _, wall in rounds[name])
    return {"name": name, "cpu_s": cpu_s[name], "images_per_s": rate, "all_cpu_s": cpu_s}


def main() -> None:
    folder, bundle, cores = sys.argv[1], Bundle.load(sys.argv[2]), usable_cores()
    preprocess = bundle.spec.preprocess
    decoding: dict[str, list[tuple[int, float, float]]] = {way.__name__: [] for way in DECODERS}
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        for _ in range(ROUNDS):
            for way in DECODERS:
                tasks = [pool.submit(decode_for, way, folder, preprocess) for _ in range(cores)]
                done = [task.result() for task in tasks]
                images, cpu, wall = zip(*done, strict=True)
                decoding[way.__name__].append((sum(images), sum(cpu), max(wall)))
    backends = backends_of(bundle, cores)
    side = preprocess.input_size
    rng = np.random.default_rng(0)
    model: dict[str, list[tuple[int, float, float]]] = {name: [] for name in backends}
    for _ in range(ROUNDS):
        for name, backend in backends.items():
            shape = (backend.execution.batch_size, side, side, 3)
            batch = rng.integers(0, 256, shape, dtype=np.uint8)
            model[name].append(run_for(backend, batch))
    print(json.dumps({"decode": fastest(decoding), "model": fastest(model)}))


if __name__ == "__main__":
    main()
