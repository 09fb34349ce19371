"""Files that make a decoder misbehave, and the decoder that does; see `sitecustomize.py`."""

import os
import struct
import zlib
from pathlib import Path

HOOK = Path(__file__).parent
AFTER_HEADER = 8 + 25
"""Bytes of a PNG's signature and of its header chunk."""


def hostile_png(png: bytes, deed: bytes) -> bytes:
    """Return a PNG that decodes as before, but where the hook is on the path."""
    body = b"evIl" + deed
    chunk = struct.pack(">I", len(deed)) + body + struct.pack(">I", zlib.crc32(body))
    return png[:AFTER_HEADER] + chunk + png[AFTER_HEADER:]


def hooked_path() -> str:
    """Return a PYTHONPATH with the hook on it."""
    return os.pathsep.join(filter(None, (str(HOOK), os.environ.get("PYTHONPATH"))))
