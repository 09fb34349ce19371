"""Files made to break a decoder: bombs, cuts, flips, polyglots, absurd headers and tags.

Each has a name and the statuses that it may get. `python -m tests.unit.images.hostile` decodes all
of them in one process and prints what became of each, and the memory at its highest.
"""

import io
import json
import random
import resource
import struct
import sys
import zipfile
import zlib

import numpy as np
from PIL import Image

from cifar_ray.errors import ImageFault
from cifar_ray.images.decode import DecodeOptions, decode
from tests.unit.images.drawn import draw, encode

Hostile = dict[str, tuple[bytes, set[str]]]
TRUNCATED, TOO_LARGE, DAMAGED, OK = {"truncated"}, {"too_large"}, {"decode_failed"}, {"ok"}
BAD = DAMAGED | TRUNCATED
HUGE = 60_000
ENCODED = {
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "gif": ("GIF", {}),
    "webp": ("WEBP", {}),
    "webp-lossless": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff-deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}


def good(kind: str) -> bytes:
    """Return a whole file of 45×30 pixels."""
    name, options = ENCODED[kind]
    return encode(draw(45, 30), name, **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, *before: bytes, depth: int = 8, colour: int = 2, idat: bytes = b""
) -> bytes:
    """Return a PNG with any header; without `idat` its pixels are black."""
    row = 1 + width * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1) * depth // 8
    data = idat or zlib.compress(bytes(row * height) if row * height < 10**7 else bytes(100))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *before, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def gif(width: int, height: int, *blocks: bytes, trailer: bytes = b";") -> bytes:
    """Return a GIF of two colours with these blocks."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + b"".join(blocks) + trailer


def gif_frame(width: int, height: int, data: bytes | None = None) -> bytes:
    """Return a frame at the upper left; by default with the data of 8×8 black pixels."""
    if data is None:
        whole = encode(Image.new("P", (8, 8)), "GIF")
        data = whole[whole.rindex(b",") + 10 : -1]
    else:
        data = b"\x02" + data
    return b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + data


def tiff(
    tags: dict[int, tuple[int, int, int]], data: bytes = bytes(64), following: int = 0
) -> bytes:
    """Return a TIFF: a directory of {tag: (type, count, value)}, then `data` at byte 1024."""
    directory = struct.pack("<H", len(tags))
    for tag, (kind, count, value) in sorted(tags.items()):
        directory += struct.pack("<HHII", tag, kind, count, value)
    head = b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", following)
    return head.ljust(1024, b"\0") + data


def tiff_tags(
    width: int, height: int, **others: tuple[int, int, int]
) -> dict[int, tuple[int, int, int]]:
    """Return the tags of a grey picture; `t322=(type, count, value)` adds or replaces one."""
    tags = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 1024),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, min(width * height, 2**32 - 1)),
    }
    return tags | {int(name[1:]): value for name, value in others.items()}


def bmp(
    width: int, height: int, *, bits: int = 24, how: int = 0, colours: int = 0, offset: int = 54
) -> bytes:
    """Return a BMP of 64 bytes of data, whatever its header says."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, how, 0, 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 64, 0, 0, offset) + info + bytes(64)


def segment(marker: int, data: bytes) -> bytes:
    """Return a JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def with_segment(marker: int, data: bytes) -> bytes:
    """Return a good JPEG with a segment behind its first marker."""
    whole = good("jpeg")
    return whole[:2] + segment(marker, data) + whole[2:]


def with_size(width: int, height: int, kind: str = "jpeg") -> bytes:
    """Return a JPEG whose frame header lies about the size."""
    data = bytearray(good(kind))
    at = data.index(b"\xff\xc2" if kind == "progressive" else b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def many_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated: each costs a pass over all pixels."""
    data = encode(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def webp_chunk(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    """Return a RIFF chunk, of another size than it says if asked."""
    return (
        kind
        + struct.pack("<I", len(data) if size is None else size)
        + data
        + b"\0" * (len(data) % 2)
    )


def webp(*chunks: bytes) -> bytes:
    """Return a WebP of these chunks."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def canvas(width: int, height: int, flags: int = 0) -> bytes:
    """Return the header of an extended WebP."""
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sizes)


def cut_files() -> Hostile:
    """Cut each format where its data begin, in the middle, and shortly before its end."""
    return {
        f"cut/{kind}-{percent}": (data[: len(data) * percent // 100], TRUNCATED)
        for kind in ENCODED
        for data in [good(kind)]
        for percent in (25, 60, 90)
    }


def flipped_files() -> Hostile:
    """Flip bits of each format, by seed; whatever comes of it, it is a status."""
    files: Hostile = {}
    for kind in ENCODED:
        files[f"flipped/{kind}"] = (mutate(good(kind), random.Random(kind)), set())
    return files


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change a file as fuzzers do: flip bits, cut, repeat, delete or overwrite a stretch."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, len(changed)))
        span = rng.randrange(1, 40)
        match rng.randrange(6):
            case 0 | 1:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                del changed[at : at + span]
            case 3:
                changed[at:at] = changed[at : at + span]
            case 4:
                changed[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"))
            case 5 if at > 8:
                del changed[at:]
    return bytes(changed)


def header_files() -> Hostile:
    """Headers that promise 60,000×60,000 pixels, none, or what no format allows."""
    return {
        "header/jpeg-huge": (with_size(HUGE, HUGE), TOO_LARGE),
        "header/progressive-huge": (with_size(HUGE, HUGE, "progressive"), TOO_LARGE),
        "header/png-huge": (png(HUGE, HUGE), TOO_LARGE),
        "header/png-largest": (png(2**31 - 1, 2**31 - 1), TOO_LARGE | DAMAGED),
        "header/gif-huge": (gif(HUGE, HUGE, gif_frame(1, 1)), TOO_LARGE),
        "header/gif-huge-frame": (gif(1, 1, gif_frame(HUGE, HUGE)), TOO_LARGE),
        "header/webp-huge": (webp(canvas(2**24, 2**8), good("webp")[12:]), set()),
        "header/bmp-huge": (bmp(HUGE, HUGE), TOO_LARGE),
        "header/bmp-largest": (bmp(2**31 - 1, -(2**31)), TOO_LARGE | DAMAGED),
        "header/tiff-huge": (tiff(tiff_tags(HUGE, HUGE)), TOO_LARGE),
        "header/tiff-largest": (tiff(tiff_tags(2**32 - 1, 2**32 - 1)), TOO_LARGE | DAMAGED),
        "header/jpeg-no-width": (with_size(0, 30), BAD),
        "header/jpeg-no-height": (with_size(45, 0), BAD),
        "header/jpeg-taller": (with_size(45, 3000), TRUNCATED | OK),
        "header/png-no-width": (png(0, 5), BAD),
        "header/png-depth-3": (png(5, 5, depth=3), DAMAGED | {"unsupported"}),
        "header/png-colour-5": (png(5, 5, colour=5), DAMAGED | {"unsupported"}),
        "header/gif-nothing": (gif(0, 0), BAD),
        "header/bmp-bits-7": (bmp(5, 5, bits=7), BAD),
        "header/bmp-palette": (bmp(5, 5, bits=8, colours=2**31 - 1), BAD),
        "header/bmp-offset": (bmp(5, 5, offset=2**31), BAD),
        "header/tiff-samples": (tiff(tiff_tags(8, 8, t277=(3, 1, 65535))), DAMAGED),
        "header/tiff-no-size": (tiff({}), BAD),
    }


def bomb_files() -> Hostile:
    """Little files that unpack to much, or never come to an end."""
    zeros = zlib.compress(bytes(100 * 2**20), 9)
    text = b"Comment\0\0" + zeros
    frames = gif_frame(8, 8) * 20_000
    endless = b"".join(b"\xff" + b"\x49" * 255 for _ in range(2000))
    return {
        "bomb/png-more-data-than-pixels": (png(8, 8, idat=zeros), set()),
        "bomb/png-bits": (png(30_000, 30_000, depth=1, colour=0, idat=zeros), TOO_LARGE),
        "bomb/png-text": (png(8, 8, chunk(b"zTXt", text)), set()),
        "bomb/png-texts": (png(8, 8, *[chunk(b"zTXt", text)] * 70), set()),
        "bomb/png-international": (png(8, 8, chunk(b"iTXt", b"k\0\1\0\0\0" + zeros)), set()),
        "bomb/png-profile": (png(8, 8, chunk(b"iCCP", b"p\0\0" + zeros)), set()),
        "bomb/png-chunks": (png(8, 8, *[chunk(b"tEXt", b"k\0v")] * 100_000), set()),
        "bomb/gif-frames": (gif(8, 8, frames), OK),
        "bomb/gif-no-end": (gif(8, 8, frames, trailer=b""), OK),
        "bomb/gif-endless-data": (gif(8, 8, gif_frame(8, 8, endless)), set()),
        "bomb/gif-comments": (gif(8, 8, b"!\xfe" + endless + b"\0", gif_frame(8, 8)), OK),
        "bomb/jpeg-scans": (many_scans(3000, 2000), TOO_LARGE),
        "bomb/jpeg-fill-bytes": (b"\xff\xd8" + b"\xff" * 2**20, BAD),
        "bomb/jpeg-segments": (b"\xff\xd8" + segment(0xE0, b"JFIF\0") * 100_000, BAD),
        "bomb/tiff-strip": (
            tiff(tiff_tags(64, 64, t259=(3, 1, 8), t279=(4, 1, len(zeros))), zeros),
            set(),
        ),
        "bomb/tiff-tile": (
            tiff(
                tiff_tags(
                    1,
                    1,
                    t322=(4, 1, HUGE),
                    t323=(4, 1, HUGE),
                    t324=(4, 1, 1024),
                    t325=(4, 1, 64),
                    t259=(3, 1, 5),
                )
            ),
            TOO_LARGE | BAD,
        ),
        "bomb/tiff-rows": (
            tiff(tiff_tags(HUGE, 1, t259=(3, 1, 5), t278=(4, 1, 2**32 - 1), t279=(4, 1, 64))),
            set(),
        ),
        "bomb/bmp-runs": (bmp(13_000, 13_000, bits=8, how=1), BAD),
        "bomb/webp-animation": (
            webp(
                canvas(16, 16, 2),
                webp_chunk(b"ANIM", bytes(6)),
                webp_chunk(b"ANMF", bytes(24)) * 9999,
            ),
            BAD,
        ),
    }


def tag_files() -> Hostile:
    """EXIF, ICC and TIFF tags that lead in circles, beyond the end, or promise gigabytes."""
    exif = b"Exif\0\0II*\0\x08\0\0\0"
    circle = struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)
    gigabytes = struct.pack("<HHHIII", 1, 0x010E, 2, 2**32 - 1, 0, 0)
    many = struct.pack("<H", 65535) + struct.pack("<HHII", 274, 3, 1, 6) * 4000
    icc = b"ICC_PROFILE\0"
    loop = tiff_tags(8, 8)
    return {
        "tags/exif-circle": (with_segment(0xE1, exif + circle), OK),
        "tags/exif-gigabytes": (with_segment(0xE1, exif + gigabytes), OK),
        "tags/exif-many": (with_segment(0xE1, exif + many), OK),
        "tags/exif-far": (with_segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"), OK),
        "tags/exif-orientation-9": (
            with_segment(0xE1, exif + struct.pack("<HHHIII", 1, 274, 3, 1, 9, 0)),
            OK,
        ),
        "tags/exif-orientations": (
            with_segment(0xE1, exif + struct.pack("<HHHIII", 1, 274, 3, 2**30, 6, 0)),
            OK,
        ),
        "tags/xmp-orientation": (
            with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b'tiff:Orientation="6"' * 2000),
            OK,
        ),
        "tags/icc-of-0": (with_segment(0xE2, icc + b"\0\0"), OK),
        "tags/icc-255-of-1": (with_segment(0xE2, icc + b"\xff\1junk"), OK),
        "tags/icc-junk": (with_segment(0xE2, icc + b"\1\1" + bytes(60_000)), OK),
        "tags/adobe-transform-9": (with_segment(0xEE, b"Adobe\0d\0\0\0\0\t"), set()),
        "tags/mpo-nowhere": (with_segment(0xE2, b"MPF\0II*\0\xff\xff\xff\x7f"), OK),
        "tags/png-exif-circle": (png(8, 8, chunk(b"eXIf", exif[6:] + circle)), OK),
        "tags/png-crc": (png(8, 8).replace(b"IDAT", b"IDAt"), BAD),
        "tags/png-length": (png(8, 8)[:33] + b"\xff\xff\xff\xffIDAT" + bytes(99), BAD),
        "tags/png-no-palette": (png(8, 8, colour=3), set()),
        "tags/png-transparency": (png(8, 8, chunk(b"tRNS", bytes(5000))), set()),
        "tags/tiff-circle": (tiff(loop, following=8), OK),
        "tags/tiff-far": (tiff(loop, following=2**32 - 2), OK),
        "tags/tiff-count": (tiff(tiff_tags(8, 8, t270=(2, 2**32 - 1, 0))), set()),
        "tags/tiff-strip-far": (tiff(tiff_tags(8, 8, t273=(4, 1, 2**32 - 1))), TRUNCATED),
        "tags/tiff-strips": (tiff(tiff_tags(8, 8, t273=(4, 2**28, 1024))), BAD),
        "tags/tiff-compression": (tiff(tiff_tags(8, 8, t259=(3, 1, 4711))), DAMAGED),
        "tags/webp-riff-size": (good("webp")[:4] + b"\xff\xff\xff\x7f" + good("webp")[8:], BAD),
        "tags/webp-profile": (webp(canvas(45, 30, 32), webp_chunk(b"ICCP", b"x", 2**31)), BAD),
        "tags/webp-nothing": (webp(), BAD),
    }


def polyglot_files() -> Hostile:
    """Two kinds in one file, or one behind another: the first bytes decide."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("x.jpg", good("jpeg"))
    script = b"*/=1;alert(1)//"
    return {
        "polyglot/jpeg-zip": (good("jpeg") + archive.getvalue(), OK),
        "polyglot/png-html": (good("png") + b"<html><script>alert(1)</script>", OK),
        "polyglot/gif-script": (
            gif(8, 8, b"!\xfe" + bytes([len(script)]) + script + b"\0", gif_frame(8, 8)),
            set(),
        ),
        "polyglot/png-jpeg": (good("png") + good("jpeg"), OK),
        "polyglot/jpeg-jpeg": (good("jpeg") + good("progressive"), OK),
        "polyglot/pdf-jpeg": (b"%PDF-1.4\n" + good("jpeg"), {"not_an_image"}),
        "polyglot/zip-png": (archive.getvalue() + good("png"), {"not_an_image"}),
        "polyglot/svg-png": (b"<svg/>" + good("png"), {"unsupported"}),
        "polyglot/jpeg-named-png": (b"\x89PNG\r\n\x1a\n" + good("jpeg"), BAD),
        "polyglot/webp-wave": (good("webp").replace(b"WEBP", b"WAVE"), {"not_an_image"}),
        "polyglot/elf": (b"\x7fELF" + bytes(100), {"not_an_image"}),
        "polyglot/postscript": (b"%!PS\n/x (y) run", {"unsupported"}),
    }


def hostile_files() -> Hostile:
    """Return all of them."""
    return (
        cut_files()
        | flipped_files()
        | header_files()
        | bomb_files()
        | tag_files()
        | polyglot_files()
    )


def status_of(data: bytes, options: DecodeOptions) -> str:
    """Decode; return the status that the row gets."""
    try:
        pixels = decode(data, options).pixels
    except ImageFault as fault:
        return fault.status
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    return "ok"


def mutated_files(number: int) -> Hostile:
    """Mutate files of every format in turn, by seed."""
    whole = [good(kind) for kind in ENCODED]
    return {
        f"mutated/{seed}": (mutate(whole[seed % len(whole)], random.Random(seed)), set())
        for seed in range(number)
    }


def peak_bytes() -> int:
    """Return this process's memory at its highest so far, as Linux tells it."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def main(limit_bytes: int, num_mutated: int) -> None:
    """Print `{"statuses": {decoder: {name: status}}, "peak_bytes": N}`."""
    files = mutated_files(num_mutated) if num_mutated else hostile_files()
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    before = peak_bytes()
    statuses = {
        decoder: {
            name: status_of(data, DecodeOptions(decoder, 32)) for name, (data, _) in files.items()
        }
        for decoder in ("pillow", "simplejpeg")
    }
    json.dump({"statuses": statuses, "peak_bytes": peak_bytes() - before}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
