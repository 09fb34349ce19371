"""On the path of a process, teaches its Pillow a PNG chunk that does what a broken decoder may do.

Decoders that crash on a file exist, but not to order; this is one as far as our code can see: it
runs within Pillow, on the bytes of a file, in whichever process decodes.
"""

import ctypes
import mmap
import os
import signal
import time

from PIL import PngImagePlugin

PAGE = mmap.PAGESIZE


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _never_return() -> None:
    while True:
        time.sleep(1)


def _never_return_nor_let_others_run() -> None:
    ctypes.PyDLL(None).pause()  # a PyDLL keeps the interpreter's lock


def _allocate_8_gb() -> None:
    _allocate(8 * 2**30)


def _allocate_1_gb() -> None:
    _allocate(2**30)


def _allocate(size_bytes: int) -> None:
    """Take memory and write to every page of it, as a decoder would that believes a header."""
    step = 2**26
    taken = []
    for _ in range(size_bytes // step):
        block = mmap.mmap(-1, step)
        for at in range(0, step, PAGE):
            block[at] = 1
        taken.append(block)
    time.sleep(1)


DEEDS = {
    b"crash": _crash,
    b"stall": _never_return,
    b"hold": _never_return_nor_let_others_run,
    b"8gb": _allocate_8_gb,
    b"1gb": _allocate_1_gb,
}


def _chunk(stream: PngImagePlugin.PngStream, pos: int, length: int) -> bytes:
    data = stream.fp.read(length)
    DEEDS[data]()
    return data


PngImagePlugin.PngStream.chunk_evIl = _chunk
