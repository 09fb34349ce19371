"""The report's own loop: `cnn-122k` in Keras, `model.fit` at batch 32.

Runs in a Python of its own with Keras and a backend: `PYTHON keras_training.py IMAGES SECONDS`
trains on random images for so long and prints, as JSON, images and seconds after the first step.
"""

import json
import sys
import time

import keras
import numpy as np
from keras import layers

BATCH_SIZE = 32


class Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """Counts images from the first step's end, and stops when the time is over."""

    def __init__(self, limit_s: float) -> None:
        super().__init__()
        self.limit_s = limit_s
        self.started = 0.0
        self.images = 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if not self.started:
            self.started = time.perf_counter()
            return
        self.images += BATCH_SIZE
        if time.perf_counter() - self.started > self.limit_s:
            # At the end of an epoch only would be too late for `stop_training`.
            seconds = time.perf_counter() - self.started
            print(json.dumps({"images": self.images, "seconds": seconds}), flush=True)
            sys.exit(0)


def main() -> None:
    number, limit_s = int(sys.argv[1]), float(sys.argv[2])
    rng = np.random.default_rng(0)
    images = rng.random((number, 32, 32, 3), dtype=np.float32)
    labels = rng.integers(0, 10, number)
    network = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(images, labels, BATCH_SIZE, epochs=1000, verbose=0, callbacks=[Clock(limit_s)])


if __name__ == "__main__":
    main()
