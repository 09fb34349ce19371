"""A worker of the local engine that does nothing: it says of every shard that it is done.

`python -m benchmarks.fake_worker`: names of shards in, a line a shard out, as from a real one.
"""

import sys

from cifar_ray.prediction.events import ShardDone, WorkerReady, to_line
from cifar_ray.prediction.part import PartFooter
from cifar_ray.runs import ShardName

IMAGES_PER_SHARD = 16_384
STAGES = {"fetch": 1.0, "decode": 2.0, "model": 3.0, "write": 0.1}
CPU_S = 6.1
FOOTER = PartFooter(
    run="0" * 64,
    shard=str(ShardName(0, 0)),
    shard_digest="0" * 64,
    rows=IMAGES_PER_SHARD,
    counts={"ok": IMAGES_PER_SHARD},
    image_bytes=IMAGES_PER_SHARD * 100_000,
)


def done(shard: str) -> str:
    """Return the event that a real worker would send after a shard."""
    return to_line(ShardDone(shard, FOOTER, STAGES, CPU_S))


def main() -> None:
    sys.stdout.write(to_line(WorkerReady()))
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(done(line.strip()))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
