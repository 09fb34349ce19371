"""Daft's batch inference with a class of the user's, as its documentation writes it.

After "Batch Inference" (https://docs.daft.ai/en/stable/use-case/batch-inference/) and "Custom
Python Code" (https://docs.daft.ai/en/stable/custom-code/): files by `from_glob_path`, download and
decoding by Daft's own expressions, the model in a `@daft.cls`, on the native runner. Beyond that,
channels_last: without it, it is no faster than the float32 loop on a CPU without AMX.
"""

from collections.abc import Iterator
from pathlib import Path

import daft
import torch
from daft import DataType, Series, col
from PIL import Image

from benchmarks.peers.dataloader_float32 import transform_of
from benchmarks.peers.interface import Row, arguments, finish
from cifar_ray.models.bundle import Bundle

BATCH_SIZE = 32
RESULT = DataType.struct({"label": DataType.int64(), "confidence": DataType.float64()})


@daft.cls(max_concurrency=1, use_process=False)
class Model:
    def __init__(self, bundle: str) -> None:
        opened = Bundle.load(Path(bundle))
        self.network = opened.network().to(memory_format=torch.channels_last)
        self.transform = transform_of(opened.spec.preprocess)

    @daft.method.batch(return_dtype=RESULT, batch_size=BATCH_SIZE)  # type: ignore[untyped-decorator]
    def classify(self, images: Series) -> list[dict[str, float]]:
        inputs = [self.transform(Image.fromarray(image)) for image in images.to_pylist()]
        batch = torch.stack(inputs).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            best = self.network(batch).softmax(dim=1).max(dim=1)
        return [
            {"label": label, "confidence": confidence}
            for label, confidence in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def label(folder: str, bundle: Bundle) -> Iterator[list[Row]]:
    model = Model(str(bundle.path))
    images = daft.from_glob_path(f"{folder}/**").with_column(
        "image", col("path").download().decode_image(mode="RGB")
    )
    labels = images.select(col("path"), model.classify(col("image")).alias("best"))
    for batch in labels.to_arrow_iter():
        yield [
            (row["path"], row["best"]["label"], row["best"]["confidence"])
            for row in batch.to_pylist()
        ]


if __name__ == "__main__":
    finish(label(*arguments()))
