"""A million keys: how much the driver takes, and how long the ends of a run do.

    python -m benchmarks.listing                                   # 10,000, 100,000 and 1,000,000
    python -m benchmarks.listing --keys 10000 --latency 0.08

A small server gives the pages of a listing, each after the latency of a page of S3's, and one image
under every key. The worker is a stub that reads no image and asks no model; it reads the manifest
and writes parts as ours do. All else is real: boto3, manifest, local engine, parts, sealing,
receipt, report, verification. Each size runs in a fresh process; a row a size.
"""

import argparse
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import psutil
from PIL import Image

BUCKET = "million"
PAGE = 1000
MEBIBYTE = 2**20
POLL_S = 0.05
WORKER = "benchmarks.listing"


def small_image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


def server(num_keys: int, latency_s: float) -> ThreadingHTTPServer:
    """Return a server that lists so many keys, a page at a time, in their order."""
    image = small_image()
    etag = hashlib.md5(image, usedforsecurity=False).hexdigest()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if "list-type" in query:
                time.sleep(latency_s)
                self._answer(self._page(query), "application/xml")
            else:
                self._answer(image, "image/jpeg")

        def _page(self, query: dict[str, str]) -> bytes:
            after = query.get("continuation-token", query.get("start-after", ""))
            digits = re.search(r"(\d{9})\.jpg$", unquote(after))
            first = int(digits[1]) + 1 if digits else 0
            last = min(first + int(query.get("max-keys", PAGE)), num_keys)
            items = "".join(
                f"<Contents><Key>{key(number)}</Key><ETag>&quot;{etag}&quot;</ETag>"
                f"<Size>{len(image)}</Size></Contents>"
                for number in range(first, last)
            )
            more = last < num_keys
            token = f"<NextContinuationToken>{key(last - 1)}</NextContinuationToken>"
            return (
                f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{items}"
                f"{token if more else ''}</ListBucketResult>"
            ).encode()

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response_only(200)
            headers = {"Content-Type": kind, "Content-Length": str(len(body)), "ETag": f'"{etag}"'}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def key(number: int) -> str:
    return f"photos/2026/{number:09d}.jpg"


def worker(destination: str, reference: str) -> None:
    """Do a worker's part without images: every row is labelled `ok`, with drawn scores."""
    from cifar_ray.config.labelling import SourceReference
    from cifar_ray.prediction.events import ShardDone, WorkerReady, to_line
    from cifar_ray.prediction.part import PartFooter, write_part
    from cifar_ray.prediction.row import OK, Outcome, ShardRows
    from cifar_ray.prediction.worker import equip
    from cifar_ray.runs import ShardName
    from cifar_ray.storage import open_store

    equipment = equip(open_store(destination), SourceReference.model_validate_json(reference))
    scoring = equipment.scoring
    logits = np.random.default_rng(0).normal(size=(2**14, len(scoring.labels)))
    print(to_line(WorkerReady()), end="", flush=True)
    for line in sys.stdin:
        name = ShardName.parse(line)
        chunk = equipment.manifest.chunk(name)
        entries = chunk.entries()
        rows = ShardRows(str(name), entries, [equipment.source.uri(entry) for entry in entries])
        outcomes = [
            Outcome(hashlib.sha256(entry.key.encode()).digest(), OK, width=32, height=32)
            for entry in entries
        ]
        rows.add(outcomes, logits[: len(entries)].astype(np.float32), None)
        footer = PartFooter(
            run=equipment.record.digest,
            shard=str(name),
            shard_digest=chunk.digest,
            rows=len(entries),
            counts={OK: len(entries)},
            image_bytes=0,
        )
        write_part(equipment.store, rows.table(scoring), footer)
        print(to_line(ShardDone(str(name), footer, {}, 0.0)), end="", flush=True)


def driver(destination: str, images_per_shard: int | None) -> None:
    """Label with the stub, and print what it took as JSON."""
    from cifar_ray.config.execution import ExecutionRequest
    from cifar_ray.config.labelling import LabellingConfig
    from cifar_ray.prediction import pipeline
    from cifar_ray.prediction.local import LocalEngine
    from cifar_ray.prediction.plan import Request, make_plan
    from cifar_ray.prediction.verification.verify import verify

    process = psutil.Process()
    started = time.monotonic()
    config = LabellingConfig(images_per_shard=images_per_shard)
    request = Request(f"s3://{BUCKET}", destination, None, None, config, ExecutionRequest())
    plan = make_plan(request)
    rss_before = process.memory_info().rss
    engine = LocalEngine(plan.store.uri, plan.source.reference, 1, 60.0)
    engine.command = [sys.executable, "-m", WORKER, "--worker", *engine.command[-2:]]
    peak = Peak(process)
    marks: dict[str, float] = {}

    def display(progress: pipeline.RunProgress) -> None:
        if progress.shards_done:
            marks.setdefault("first part", time.monotonic())
        if progress.listing_ended:
            marks.setdefault("listed", time.monotonic())
        marks["labelled"] = time.monotonic()

    receipt = pipeline.label(plan, engine, 1.0, display)
    sealed, driver_peak = time.monotonic(), peak.rss
    verified = verify(plan.store, lambda rows: None)
    done = time.monotonic()
    assert verified.rows == receipt.listed, f"{verified.rows} of {receipt.listed} rows"
    assert not verified.differences, verified.differences
    print(
        json.dumps(
            {
                "keys": receipt.listed,
                "parts": receipt.parts,
                "first part": marks["first part"] - started,
                "listed": marks["listed"] - started,
                "labelled": marks["labelled"] - started,
                "seal": sealed - marks["labelled"],
                "verify": done - sealed,
                "before": rss_before / MEBIBYTE,
                "peak": driver_peak / MEBIBYTE,
                "peak verifying": peak.stop() / MEBIBYTE,
            }
        )
    )


class Peak(threading.Thread):
    """Looks how much memory a process has, until it is stopped."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process, self.rss, self.stopped = process, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.stopped.wait(POLL_S):
            self.rss = max(self.rss, self.process.memory_info().rss)

    def stop(self) -> int:
        self.stopped.set()
        self.join()
        return self.rss


def measure(num_keys: int, latency_s: float, images_per_shard: int | None) -> dict[str, float]:
    """Run a driver in a fresh process against a listing of so many keys."""
    http = server(num_keys, latency_s)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{http.server_address[1]}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_REGION": "us-east-1",
    }
    try:
        with tempfile.TemporaryDirectory(prefix="listing-") as folder:
            command = [sys.executable, "-m", WORKER, "--driver", str(Path(folder) / "out")]
            if images_per_shard is not None:
                command += ["--images-per-shard", str(images_per_shard)]
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
    finally:
        http.shutdown()
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, action="append")
    parser.add_argument("--latency", type=float, default=0.08, help="seconds a page of a listing")
    parser.add_argument("--images-per-shard", type=int, help="default: as a run has them")
    parser.add_argument("--driver", metavar="DEST", help=argparse.SUPPRESS)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker)
        return
    if options.driver:
        driver(options.driver, options.images_per_shard)
        return
    print(
        "keys        parts   first part s   listed s   labelled s   seal s   verify s   "
        "driver MiB, before, peak, and with verifying"
    )
    for num_keys in options.keys or [10_000, 100_000, 1_000_000]:
        found = measure(num_keys, options.latency, options.images_per_shard)
        print(
            f"{found['keys']:<11,} {found['parts']:<7} {found['first part']:<14.1f} "
            f"{found['listed']:<10.1f} {found['labelled']:<12.1f} {found['seal']:<8.1f} "
            f"{found['verify']:<10.1f} {found['before']:.0f}, {found['peak']:.0f}, "
            f"{found['peak verifying']:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
