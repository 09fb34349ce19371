"""Labelled images of photographs' size: each photo is a class, its crops are the images.

There are no pretrained weights here, and random ones prove nothing about labels. So that agreement
can be measured with a trained network of 224×224 inputs, this writes a folder to train it on:

    python -m benchmarks.scenes FOLDER
    cifar-ray train FOLDER --recipe finetune --from-scratch --out RUN
"""

import argparse
import io
import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from benchmarks.stores import photo_files

CROP = (512, 384)
TRAINING_SEED, OTHER_SEED = 1, 0


def crops(number: int, seed: int = OTHER_SEED, enlarge: int = 1) -> Iterator[tuple[str, bytes]]:
    """Yield parts of the photos as JPEG, each of another size or place, after their photo's name.

    Photos take turns. Two seeds give different parts.
    """
    rng = random.Random(seed)
    photos = [(path.stem, Image.open(path).convert("RGB")) for path in photo_files()]
    for at in range(number):
        name, photo = photos[at % len(photos)]
        share = rng.uniform(0.3, 1)
        width, height = int(photo.width * share), int(photo.height * share)
        left, top = rng.randint(0, photo.width - width), rng.randint(0, photo.height - height)
        buffer = io.BytesIO()
        size = (CROP[0] * enlarge, CROP[1] * enlarge)
        part = photo.crop((left, top, left + width, top + height)).resize(size)
        part.save(buffer, "JPEG", quality=90)
        yield name, buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crops", type=int, default=20, help="of each photo")
    arguments = parser.parse_args()
    number = arguments.crops * len(photo_files())
    for at, (name, data) in enumerate(crops(number, TRAINING_SEED)):
        folder = arguments.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{at:05}.jpg").write_bytes(data)
    print(f"{number:,} images in {arguments.folder}.")


if __name__ == "__main__":
    main()
