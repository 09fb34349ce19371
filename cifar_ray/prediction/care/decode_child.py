"""A child that decodes for a worker: files in on stdin, answers out on stdout.

`python -m cifar_ray.prediction.care.decode_child SETTINGS` (JSON: options of `decode`, and the
preprocessing). A request is a length, the seconds after which the child shall end itself, and the
file's bytes; an answer is a line of JSON, followed by the pixels if the image is fit.

It loads neither torch nor pyarrow, so that it starts at once. End of input ends it.
"""

import json
import os
import signal
import struct
import sys
from typing import Any, BinaryIO

from cifar_ray.errors import ImageFault
from cifar_ray.images.decode import DecodeOptions, Pixels, decode
from cifar_ray.images.preprocess import Preprocess

READY = b"ready\n"
REQUEST = struct.Struct("<QI")
MAX_ALARM_S = 2**31 - 1


def main() -> int:
    """Decode until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    _offer_to_the_kernel()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    settings = json.loads(sys.argv[1])
    options = DecodeOptions(**settings["options"])
    preprocess = Preprocess.model_validate(settings["preprocess"])
    answers.write(READY)
    answers.flush()
    while header := sys.stdin.buffer.read(REQUEST.size):
        length, alarm_s = REQUEST.unpack(header)
        data = sys.stdin.buffer.read(length)
        # The worker watches more closely; this is for a child whose worker was killed meanwhile.
        _alarm(alarm_s)
        _answer(answers, data, options, preprocess)
        _alarm(0)
    return 0


def _answer(answers: BinaryIO, data: bytes, options: DecodeOptions, preprocess: Preprocess) -> None:
    answer: dict[str, Any]
    pixels: Pixels | None = None
    try:
        image = decode(data, options)
        pixels = preprocess.apply(image.pixels)
        answer = {"width": image.width, "height": image.height}
    except ImageFault as fault:
        if isinstance(fault.__cause__, MemoryError):
            raise  # This ends the child, as when the system had ended it.
        answer = {"status": fault.status, "error": fault.error}
    answers.write(json.dumps(answer).encode() + b"\n")
    if pixels is not None:
        answers.write(pixels.tobytes())
    answers.flush()


def _alarm(seconds: int) -> None:
    """Have the kernel end this process after some time; its default for a SIGALRM."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _offer_to_the_kernel() -> None:
    """Be the first to go when the machine runs out of memory, before worker and driver."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        return  # Not Linux, or not allowed.


if __name__ == "__main__":
    sys.exit(main())
