"""The service under load, beside its model alone: `python -m benchmarks.serve`.

Starts the service with batching and without, asks each for the same images over 16 connections,
one image a request, and prints images/s, latencies and lost requests. Between them the model alone
labels as many images in the same process layout (decoded, in the largest batch), which is what the
service could reach if HTTP, Ray Serve and decoding cost nothing. With `--fuzz N`, N damaged bodies
are sent first: PNG and JPEG, as they are and in forms, which may be damaged too. 500 of the images
are also labelled by `cifar-ray predict`'s engine, and the answers held against its rows.

It exits with 1 if a request was lost, a damaged body got a 5xx, killed the replica or made its
memory grow by more than 64 MiB, or answers and rows are not the same labels with confidences within
1e-5 (float32) or 0.01 (bfloat16).
"""

import argparse
import io
import os
import platform
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from cifar_ray.config.addresses import LOOPBACK
from cifar_ray.config.execution import ExecutionRequest
from cifar_ray.config.labelling import LabellingConfig
from cifar_ray.config.serving import Limits, ServerOptions, ServiceConfig
from cifar_ray.models.backends import open_backend, resolve_execution
from cifar_ray.models.bundle import Bundle
from cifar_ray.on_ray.serving.running import RunningService, running_service
from cifar_ray.prediction.local import LocalEngine
from cifar_ray.prediction.pipeline import label
from cifar_ray.prediction.plan import Request, make_plan
from tests.drawing import draw

BATCHED, ALONE = (1, 4, 16), (1,)
WARM_UP = 50
ANY = {"content-type": "application/octet-stream"}
FORM = {"content-type": "multipart/form-data; boundary=b"}
FORM_HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
FORM_TAIL = b"\r\n--b--\r\n"
COMPARED = 500
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.01}
"""How far the confidences of service and labelling may be apart."""
MAX_GROWTH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Measured:
    name: str
    images_per_s: float
    milliseconds: tuple[float, float, float] | None = None
    lost: int = 0


@dataclass(frozen=True)
class Verdict:
    said: str
    good: bool


def draw_images(number: int, kind: str = "PNG") -> list[bytes]:
    rng = random.Random(0)
    images = []
    for _ in range(number):
        buffer = io.BytesIO()
        draw(rng, (32, 32), "RGB").save(buffer, kind)
        images.append(buffer.getvalue())
    return images


def read_images(store: Path, number: int) -> list[bytes]:
    paths = sorted(path for path in store.rglob("*") if path.is_file())
    return [path.read_bytes() for path in paths[:number]]


@contextmanager
def service(batch_sizes: tuple[int, ...], execution: ExecutionRequest) -> Iterator[RunningService]:
    config = ServiceConfig(
        models={"box": str(Bundle.default().path)},
        default_model="box",
        execution=execution,
        batch_sizes=batch_sizes,
        limits=Limits(requests=256),
    )
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    with running_service(config, ServerOptions(port=port)) as running:
        yield running


def load(url: str, images: list[bytes], connections: int) -> tuple[float, list[float], int]:
    """Ask for all images; seconds in all, seconds of each request, and how many were lost."""
    local = threading.local()

    def ask(data: bytes) -> tuple[float, bool]:
        if not hasattr(local, "client"):
            local.client = httpx.Client(base_url=url, timeout=120)
        started = time.perf_counter()
        answer = local.client.post("/v1/predict", content=data, headers=ANY)
        seconds = time.perf_counter() - started
        good = answer.status_code == 200 and answer.json()["results"][0]["status"] == "ok"
        return seconds, good

    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(ask, images[:WARM_UP]))
        started = time.perf_counter()
        asked = list(threads.map(ask, images))
        wall = time.perf_counter() - started
    return wall, [seconds for seconds, _ in asked], sum(not good for _, good in asked)


def measure_service(
    name: str,
    sizes: tuple[int, ...],
    execution: ExecutionRequest,
    images: list[bytes],
    connections: int,
) -> Measured:
    with service(sizes, execution) as running:
        wall, seconds, lost = load(running.url, images, connections)
    cuts = quantiles(seconds, n=100)
    latency = (cuts[49] * 1000, cuts[94] * 1000, cuts[98] * 1000)
    return Measured(name, len(images) / wall, latency, lost)


def measure_model(execution: ExecutionRequest, number: int) -> Measured:
    bundle = Bundle.default()
    request = execution.model_copy(update={"batch_size": max(BATCHED)})
    backend = open_backend(bundle, resolve_execution(request, bundle.spec))
    side = bundle.spec.preprocess.input_size
    batch = np.zeros((max(BATCHED), side, side, 3), np.uint8)
    backend.run(batch)
    batches = -(-number // max(BATCHED))
    with ThreadPoolExecutor(backend.num_parallel) as threads:
        started = time.perf_counter()
        list(threads.map(lambda _: backend.run(batch), range(batches)))
        wall = time.perf_counter() - started
    return Measured("the model alone", batches * max(BATCHED) / wall)


def fuzz(number: int, execution: ExecutionRequest) -> Verdict:
    """Send damaged bodies; say what came back, and what the replica's memory did."""
    rng = random.Random(1)
    images = [*draw_images(50, "PNG"), *draw_images(50, "JPEG")]
    codes: Counter[int] = Counter()
    memory = []
    with (
        service(BATCHED, execution) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        replica = replica_process()
        for count in range(number):
            if count in (number // 4, number - 1):  # after what the first ones make it load
                memory.append(replica.memory_info().rss)
            body, headers = damaged_body(rng, rng.choice(images))
            codes[client.post("/v1/predict", content=body, headers=headers).status_code] += 1
        alive = replica.is_running() and client.get("/readyz").status_code == 200
    before, after = memory
    answers = ", ".join(f"{code}: {count:,}" for code, count in sorted(codes.items()))
    said = (
        f"{number:,} damaged bodies: {answers}; alive: {alive}; memory {before / 2**20:.0f} → "
        f"{after / 2**20:.0f} MiB"
    )
    return Verdict(said, alive and max(codes) < 500 and after - before <= MAX_GROWTH_BYTES)


def damaged_body(rng: random.Random, image: bytes) -> tuple[bytes, dict[str, str]]:
    """Return a damaged image as it is or in a form, every other one of which is damaged too."""
    data = damaged(rng, image)
    if rng.random() < 0.5:
        return data, ANY
    form = FORM_HEAD + data + FORM_TAIL
    return (damaged(rng, form) if rng.random() < 0.5 else form), FORM


def damaged(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 20)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed[: rng.randrange(1, len(changed) + 1)])


def agreement(images: list[bytes], execution: ExecutionRequest) -> Verdict:
    """Label images with the engine and by the service; say how far their answers agree."""
    with tempfile.TemporaryDirectory() as folder:
        store, out = Path(folder, "store"), Path(folder, "out")
        store.mkdir()
        for number, data in enumerate(images):
            (store / f"{number:05}.img").write_bytes(data)
        plan = make_plan(Request(str(store), str(out), None, None, LabellingConfig(), execution))
        engine = LocalEngine(plan.store.uri, plan.source.reference, 1, 10.0)
        label(plan, engine, 1.0, lambda progress: None)
        rows = pq.read_table(out / "predictions").sort_by("key").to_pylist()
    with service(BATCHED, execution) as running, httpx.Client(base_url=running.url) as client:
        answers = [
            client.post("/v1/predict", content=data, headers=ANY, timeout=60).json()["results"][0]
            for data in images
        ]
    pairs = list(zip(rows, answers, strict=True))
    same = sum(row["label"] == answer["label"] for row, answer in pairs)
    worst = max(abs(row["confidence"] - answer["confidence"]) for row, answer in pairs)
    most = Counter(row["label"] for row in rows).most_common(1)[0][1] / len(rows)
    said = (
        f"{len(rows)} images: {same} top-1 labels equal those of labelling; worst difference of "
        f"confidences {worst:.1e}; the most frequent label is on {most:.0%} of them"
    )
    return Verdict(said, same == len(rows) and worst <= TOLERANCE[execution.precision])


def replica_process() -> psutil.Process:
    processes = psutil.Process().children(recursive=True)
    (found,) = [p for p in processes if "ServeReplica:cifar-ray:Replica" in "".join(p.cmdline())]
    return found


def table_of(results: list[Measured]) -> Table:
    table = Table("", "images/s", "of the model's rate", "p50 ms", "p95 ms", "p99 ms", "lost")
    model = next(result for result in results if result.milliseconds is None)
    for result in results:
        times = [f"{value:,.0f}" for value in result.milliseconds or ()] or ["", "", ""]
        share = f"{result.images_per_s / model.images_per_s:.0%}"
        lost = "" if result.milliseconds is None else str(result.lost)
        table.add_row(result.name, f"{result.images_per_s:,.0f}", share, *times, lost)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--store", type=Path, help="take this folder's images, not drawn ones")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N")
    parser.add_argument("--precision", choices=TOLERANCE, default="float32")
    arguments = parser.parse_args()
    cores = os.cpu_count() or 1
    execution = ExecutionRequest(device="cpu", precision=arguments.precision, threads=cores)
    images = (
        read_images(arguments.store, arguments.images)
        if arguments.store
        else draw_images(arguments.images)
    )
    console = Console(width=100)
    verdicts = [agreement(images[:COMPARED], execution)]
    if arguments.fuzz:
        verdicts.append(fuzz(arguments.fuzz, execution))
    for verdict in verdicts:
        console.print(verdict.said)
    results = [
        measure_service("with batches", BATCHED, execution, images, arguments.connections),
        measure_model(execution, arguments.images),
        measure_service("one by one", ALONE, execution, images, arguments.connections),
    ]
    console.print(
        f"{len(images):,} images, {arguments.connections} connections, {Bundle.default().id}, "
        f"{execution.precision}, {cores} cores ({platform.machine()}), "
        f"load {os.getloadavg()[0]:.1f}"
    )
    console.print(table_of(results))
    lost = sum(result.lost for result in results)
    return int(lost > 0 or not all(verdict.good for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
