"""Labelling a bucket behind a proxy that adds 20 ms, beside the same images in a folder.

`python -m benchmarks.predict_s3` runs moto's server and the proxy on this machine, and prints, as
medians over the pairs: images/s of the whole process from the folder and from the bucket, the CPU
time of server and proxy (which a store elsewhere would not take from the workers' cores), and how
many objects/s obstore's bare client reads through the same proxy.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import obstore
import psutil
from obstore.store import S3Store

from benchmarks.bundles import bundle_of
from benchmarks.measuring import measure_labelling
from benchmarks.stores import STORES
from cifar_ray.config.machine import usable_cores
from tests.store.conftest import BUCKET
from tests.store.proxy import FaultProxy
from tests.store.servers import REGION, MotoServer, client_of

LATENCY_S = 0.02
AT_A_TIME = 64


def labelling_s(source: Path | str, bundle: Path, folder: Path) -> float:
    return measure_labelling(source, bundle, folder, "--local")[0].wall_s


async def read_all(keys: list[str]) -> float:
    """Read objects with the bare client; return objects/s."""
    store = S3Store(BUCKET, client_options={"allow_http": True})
    free = asyncio.Semaphore(AT_A_TIME)

    async def read(key: str) -> None:
        async with free:
            await (await obstore.get_async(store, key)).bytes_async()

    started = time.perf_counter()
    await asyncio.gather(*map(read, keys))
    return len(keys) / (time.perf_counter() - started)


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
            local, bucket, servers_s, bare = [], [], [], []
            for _ in range(arguments.pairs):
                local.append(labelling_s(store, bundle, folder))
                before = servers_cpu_s(server)
                bucket.append(labelling_s(f"s3://{BUCKET}", bundle, folder))
                servers_s.append(servers_cpu_s(server) - before)
                bare.append(asyncio.run(read_all(keys)))
        finally:
            server.stop()
    number = len(keys)
    alone = [
        wall_s - cpu_s / usable_cores() for wall_s, cpu_s in zip(bucket, servers_s, strict=True)
    ]
    against = median(a / b for a, b in zip(local, alone, strict=True))
    print(
        f"{number:,} images of `{arguments.store}`, {arguments.pairs} pairs: folder "
        f"{number / median(local):,.1f} images/s, bucket {number / median(bucket):,.1f}, and "
        f"{number / median(alone):,.1f} without the {median(servers_s):.1f} s of CPU of server "
        f"and proxy: {against:.2f} of the folder's. The bare client reads {median(bare):,.0f} "
        "objects/s."
    )


if __name__ == "__main__":
    main()
