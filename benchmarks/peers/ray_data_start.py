"""Ray Data's own bare start: `ray.init`, and one dataset through an actor that imports torch.

`python -m benchmarks.peers.ray_data_start` prints, as JSON, the time (seconds since the epoch) at
which the first row was there.
"""

import json
import os
import secrets
import time

import numpy as np


class Torch:
    def __init__(self) -> None:
        import torch

        self.one = torch.ones(1)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"row": batch["item"] * self.one.numpy()}


def main() -> None:
    # Else Ray writes a token into the user's home. It reads them when it is imported.
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    rows = ray.data.from_items([1]).map_batches(
        Torch, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=0.5, batch_size=1
    )
    next(iter(rows.iter_rows()))
    print(json.dumps({"first_row": time.time()}))


if __name__ == "__main__":
    main()
