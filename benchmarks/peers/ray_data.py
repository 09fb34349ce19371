"""Ray Data's batch inference over images, as its documentation writes it.

After "Image Classification Batch Inference with PyTorch ResNet"
(https://docs.ray.io/en/latest/data/examples/pytorch_resnet_batch_prediction.html): `read_images`,
`map` with torchvision's transforms, `map_batches` with an actor that holds the model. The actors
take all cores but one: with none left for the reads, the pipeline would stand still.
"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.peers.dataloader_float32 import transform_of
from benchmarks.peers.interface import Row, arguments, finish
from cifar_ray.models.bundle import Bundle

BATCH_SIZE = 32


class Model:
    def __init__(self, bundle: Path) -> None:
        self.network = Bundle.load(bundle).network()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            scores = self.network(torch.from_numpy(np.array(batch["image"]))).softmax(dim=1)
        best = scores.max(dim=1)
        return {
            "path": batch["path"],
            "label": best.indices.numpy(),
            "confidence": best.values.numpy(),
        }


def label(folder: str, bundle: Bundle) -> Iterator[list[Row]]:
    transform = transform_of(bundle.spec.preprocess)

    def preprocess(row: dict[str, Any]) -> dict[str, Any]:
        return {"path": row["path"], "image": transform(Image.fromarray(row["image"])).numpy()}

    # Else Ray writes a token into the user's home. It reads them when it is imported.
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    labels = (
        ray.data.read_images(folder, mode="RGB", include_paths=True)
        .map(preprocess)
        .map_batches(
            Model,
            fn_constructor_args=(bundle.path,),
            batch_size=BATCH_SIZE,
            compute=ray.data.ActorPoolStrategy(size=max(1, (os.cpu_count() or 1) - 1)),
            num_cpus=1,
        )
    )
    for batch in labels.iter_batches(batch_size=None):
        columns = (batch["path"], batch["label"].tolist(), batch["confidence"].tolist())
        yield list(zip(*columns, strict=True))


if __name__ == "__main__":
    finish(label(*arguments()))
