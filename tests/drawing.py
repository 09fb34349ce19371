"""Drawn images for tests: coloured shapes from a seed, in the sizes and modes that stores hold."""

import random
from pathlib import Path

from PIL import Image, ImageDraw

SIZES = ((32, 32), (48, 40), (160, 120), (31, 97), (500, 375))


def draw(rng: random.Random, size: tuple[int, int], mode: str) -> Image.Image:
    """Return a background with three to six shapes; colours and places come from `rng`."""
    image = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    canvas = ImageDraw.Draw(image)
    for _ in range(rng.randint(3, 6)):
        xs = sorted(rng.randrange(size[0] + 1) for _ in range(2))
        ys = sorted(rng.randrange(size[1] + 1) for _ in range(2))
        colour = tuple(rng.randrange(256) for _ in range(3))
        shape = rng.choice((canvas.rectangle, canvas.ellipse))
        shape((xs[0], ys[0], xs[1], ys[1]), fill=colour)
    return image.convert(mode)


def draw_folder(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Fill `folder` with `count` distinct images, every third one a PNG, some in sub-folders.

    Returns their paths in the order of their names.
    """
    rng = random.Random(seed)
    paths = []
    for number in range(count):
        below = folder / ("a", "b/c", "")[number % 3]
        below.mkdir(parents=True, exist_ok=True)
        suffix = ".png" if number % 3 == 1 else ".jpg"
        mode = "L" if number % 7 == 3 else "RGB"
        path = below / f"drawn-{number:04}{suffix}"
        draw(rng, SIZES[number % len(SIZES)], mode).save(path)
        paths.append(path)
    return sorted(paths)


def draw_classes(folder: Path, each: int, seed: int = 0) -> None:
    """Fill `folder` with sub-folders blue, green and red: `each` images of that colour, in shades.

    The first image of each has another size.
    """
    rng = random.Random(seed)
    for number, name in enumerate(("blue", "green", "red")):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            channels = [rng.randrange(60), rng.randrange(60), rng.randrange(60)]
            channels[2 - number] += 150
            size = (40, 36) if i == 0 else (32, 32)
            Image.new("RGB", size, tuple(channels)).save(folder / name / f"{i:02}.png")
