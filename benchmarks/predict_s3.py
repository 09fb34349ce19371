"""Labelling a bucket behind a proxy that adds 20 ms, beside the same images in a folder.

`python -m benchmarks.predict_s3` runs moto's server and the proxy on this machine, and prints, as
medians over the pairs: images/s of the whole process and of the steady state, from the folder and
from the bucket; the CPU time of server and proxy, which a store elsewhere would not take from the
workers' cores; and how many objects/s a bare client reads through the same proxy: obstore's, with
as many requests at a time as our workers have together, in a loop of asyncio and in threads.
"""

import argparse
import asyncio
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import obstore
import psutil
from obstore.store import S3Store

from benchmarks.bundles import bundle_of
from benchmarks.measuring import measure_labelling, steady_rate
from benchmarks.stores import STORES
from cifar_ray.config.machine import usable_cores
from tests.store.conftest import BUCKET
from tests.store.proxy import FaultProxy
from tests.store.servers import REGION, MotoServer, client_of

LATENCY_S = 0.02
AT_A_TIME = 64


@dataclass(frozen=True)
class Pair:
    folder_s: float
    folder_rate: float
    bucket_s: float
    bucket_rate: float
    servers_s: float
    """CPU time of server and proxy while the bucket was labelled."""
    bare_rate: float
    """Objects/s of the faster of the bare clients."""

    @property
    def alone_s(self) -> float:
        """What the bucket would have taken with the servers on other cores, at best."""
        return self.bucket_s - self.servers_s / usable_cores()


def label(source: Path | str, bundle: Path, folder: Path) -> tuple[float, float]:
    """Return seconds of the whole process, and images/s of its steady state."""
    usage, parts = measure_labelling(source, bundle, folder, "--local")
    return usage.wall_s, steady_rate(parts) or math.nan


async def read_in_loop(keys: list[str]) -> None:
    store = S3Store(BUCKET, client_options={"allow_http": True})
    free = asyncio.Semaphore(AT_A_TIME)

    async def read(key: str) -> None:
        async with free:
            await (await obstore.get_async(store, key)).bytes_async()

    await asyncio.gather(*map(read, keys))


def read_in_threads(keys: list[str]) -> None:
    store = S3Store(BUCKET, client_options={"allow_http": True})

    def read(key: str) -> int:
        return len(obstore.get(store, key).bytes())

    with ThreadPoolExecutor(AT_A_TIME) as threads:
        list(threads.map(read, keys))


def bare_rate(keys: list[str]) -> float:
    """Return objects/s of the faster client."""
    started = time.perf_counter()
    asyncio.run(read_in_loop(keys))
    turned = time.perf_counter()
    read_in_threads(keys)
    return len(keys) / min(turned - started, time.perf_counter() - turned)


def fill(server: MotoServer, store: Path) -> list[str]:
    client = client_of(server, server.port)
    client.create_bucket(Bucket=BUCKET)
    paths = sorted(store.iterdir())
    for path in paths:
        client.put_object(Bucket=BUCKET, Key=path.name, Body=path.read_bytes())
    return [path.name for path in paths]


def point_at(server: MotoServer, proxy: FaultProxy) -> None:
    """Let every client that starts from here on find the proxy, and nothing of this machine's."""
    os.environ.update(
        AWS_ENDPOINT_URL=proxy.url,
        AWS_REGION=REGION,
        AWS_ACCESS_KEY_ID=server.access_key,
        AWS_SECRET_ACCESS_KEY=server.secret_key,
        AWS_EC2_METADATA_DISABLED="true",
        AWS_CONFIG_FILE="none",
        AWS_SHARED_CREDENTIALS_FILE="none",
    )


def servers_cpu_s(server: MotoServer) -> float:
    """CPU seconds of server and proxy so far; the proxy runs in this process."""
    times = psutil.Process(server.process.pid).cpu_times()
    return float(times.user + times.system + time.process_time())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="drawn", choices=STORES)
    parser.add_argument("--model", default="box", help="box, a bundle's folder, or a network")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--limit", type=int, help="take the first N images of the store only")
    arguments = parser.parse_args()
    server = MotoServer()
    with tempfile.TemporaryDirectory(prefix="cifar-ray-bench-") as name:
        folder = Path(name)
        store = folder / "store"
        store.mkdir()
        STORES[arguments.store](store)
        for surplus in sorted(store.iterdir())[arguments.limit or sys.maxsize :]:
            surplus.unlink()
        bundle = bundle_of(arguments.model, folder).path
        server.start()
        proxy = FaultProxy(("127.0.0.1", server.port), latency_s=LATENCY_S)
        try:
            keys = fill(server, store)
            proxy.start()
            point_at(server, proxy)
            pairs = []
            for _ in range(arguments.pairs):
                local = label(store, bundle, folder)
                before = servers_cpu_s(server)
                bucket = label(f"s3://{BUCKET}", bundle, folder)
                servers_s = servers_cpu_s(server) - before
                pairs.append(Pair(*local, *bucket, servers_s, bare_rate(keys)))
        finally:
            server.stop()
    print(report(f"{len(keys):,} images of `{arguments.store}`", len(keys), pairs))


def report(what: str, images: int, pairs: list[Pair]) -> str:
    def middle(value: Callable[[Pair], float], form: str = ",.1f") -> str:
        values = [value(pair) for pair in pairs]
        return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"

    return "\n".join(
        [
            f"{what}, medians of {len(pairs)} pairs (lowest and highest):\n",
            "| | images/s, whole | steady |",
            "|---|---|---|",
            f"| folder | {middle(lambda pair: images / pair.folder_s)} | "
            f"{middle(lambda pair: pair.folder_rate)} |",
            f"| bucket, {LATENCY_S * 1000:.0f} ms away | "
            f"{middle(lambda pair: images / pair.bucket_s)} | "
            f"{middle(lambda pair: pair.bucket_rate)} |",
            f"| bucket, less the {middle(lambda pair: pair.servers_s)} s of CPU of server and proxy"
            f" | {middle(lambda pair: images / pair.alone_s)} | |",
            f"| its share of the folder's | {middle(lambda p: p.folder_s / p.alone_s, '.0%')} | |",
            f"| bare client, objects/s | {middle(lambda pair: pair.bare_rate)} | |",
            "| the bucket's images/s, as a share of that | "
            f"{middle(lambda p: images / p.bucket_s / p.bare_rate, '.0%')} | "
            f"{middle(lambda p: p.bucket_rate / p.bare_rate, '.0%')} |",
        ]
    )


if __name__ == "__main__":
    main()
