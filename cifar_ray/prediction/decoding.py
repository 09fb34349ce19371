"""From a file's bytes to the model's input, in the worker itself or, with care, in a child of it.

In the worker it is fast, but a file that makes a decoder crash takes the worker with it, and the
watchdog ends a worker whose decoder does not return. Their shard is then done with care. Whichever
way an image goes, its outcome is the same: pixels, sizes and faults come from the same code, and
what only a child survives is settled by a child alone.
"""

from cifar_ray.errors import ImageFault
from cifar_ray.images.decode import DecodeOptions, Pixels, decode
from cifar_ray.images.preprocess import Preprocess
from cifar_ray.prediction.care.careful_decoding import CarefulDecoding
from cifar_ray.prediction.care.watchdog import Limits, Watchdog
from cifar_ray.prediction.stopwatch import Stopwatch


class Decoding:
    """Decodes and preprocesses for any number of threads."""

    def __init__(self, options: DecodeOptions, preprocess: Preprocess, limits: Limits) -> None:
        """Start the watchdog; `close` ends it."""
        self.options = options
        self.preprocess = preprocess
        self.watchdog = Watchdog(limits)
        self.careful = CarefulDecoding(options, preprocess, self.watchdog)

    def fill(
        self, data: bytes, slot: Pixels, careful: bool, stopwatch: Stopwatch
    ) -> tuple[int, int]:
        """Bring what the model takes (S×S×3) into `slot`; return the image's own width and height.

        Raises `ImageFault` for what cannot be decoded. The last stage is left to be ended.
        """
        if not careful:
            self.watchdog.begin(len(data))
            try:
                image = decode(data, self.options)
                stopwatch.lap("decode")
                slot[...] = self.preprocess.apply(image.pixels)
                return image.width, image.height
            except ImageFault as fault:
                if not isinstance(fault.__cause__, MemoryError):
                    raise
            except MemoryError:
                pass
            finally:
                self.watchdog.end()
            # How much memory is left here is not the image's doing: a child's limit decides.
        pixels, width, height = self.careful.prepare(data)
        stopwatch.lap("decode")
        slot[...] = pixels
        return width, height

    def close(self) -> None:
        """End the watchdog and the children."""
        self.watchdog.close()
        self.careful.close()
