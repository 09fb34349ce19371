import io
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cifar_ray.errors import ImageFault
from cifar_ray.images.decode import DecodeOptions, decode
from tests.unit.images.drawn import draw, encode
from tests.unit.images.hostile import chunk, many_scans

PILLOW = DecodeOptions("pillow")
FAST = DecodeOptions("simplejpeg")
BOTH = pytest.mark.parametrize("options", [PILLOW, FAST], ids=["pillow", "simplejpeg"])
FILES = {
    "jpeg": ("JPEG", {}),
    "jpeg-444": ("JPEG", {"subsampling": 0}),
    "jpeg-progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "gif": ("GIF", {}),
    "webp": ("WEBP", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff-jpeg": ("TIFF", {"compression": "jpeg"}),
}


def status_of(data: bytes, options: DecodeOptions = FAST) -> str:
    try:
        decode(data, options)
    except ImageFault as fault:
        return fault.status
    return "ok"


@BOTH
@pytest.mark.parametrize("kind", FILES)
def test_every_format_gives_pillows_pixels_and_size(kind: str, options: DecodeOptions) -> None:
    name, how = FILES[kind]
    data = encode(draw(45, 30), name, **how)
    decoded = decode(data, options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert (decoded.width, decoded.height) == (45, 30)
    assert decoded.pixels.dtype == np.uint8
    np.testing.assert_array_equal(decoded.pixels, expected)


@BOTH
@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_anywhere_is_never_padded(kind: str, options: DecodeOptions) -> None:
    name, how = FILES[kind]
    data = encode(draw(45, 30), name, **how)
    whole = decode(data, options).pixels
    for cut in range(18, len(data), 7):
        status = status_of(data[:cut], options)
        if status == "ok":  # only what follows the pixels is missing
            np.testing.assert_array_equal(decode(data[:cut], options).pixels, whole)
            assert cut > len(data) - 30
        else:
            assert (cut, status) == (cut, "truncated")


def test_a_jpeg_whose_data_stop_before_its_end_marker_is_truncated() -> None:
    data = encode(draw(64, 64), "JPEG")
    assert status_of(data[: len(data) * 2 // 3] + b"\xff\xd9") == "truncated"


@BOTH
@pytest.mark.parametrize("kind", FILES)
def test_flipped_bits_raise_nothing_but_image_faults(kind: str, options: DecodeOptions) -> None:
    name, how = FILES[kind]
    data = encode(draw(45, 30), name, **how)
    generator = np.random.default_rng(7)
    small = DecodeOptions(options.decoder, max_pixels=1_000_000)
    statuses = set()
    for _ in range(150):
        damaged = bytearray(data)
        for position in generator.integers(0, min(len(data), 400), 3):
            damaged[position] ^= 1 << generator.integers(0, 8)
        statuses.add(status_of(bytes(damaged), small))
    assert statuses - {"ok"}


@BOTH
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_as_pillow_does(
    name: str, orientation: int, options: DecodeOptions
) -> None:
    exif = Image.Exif()
    exif[0x0110] = "drawn"
    exif[0x0112] = orientation
    data = encode(draw(40, 24), name, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    decoded = decode(data, options)
    assert (decoded.width, decoded.height) == expected.size
    np.testing.assert_array_equal(decoded.pixels, np.asarray(expected))
    assert decoded.pixels.flags["C_CONTIGUOUS"]


def jpeg_with_app1(segment: bytes) -> bytes:
    data = encode(draw(40, 24), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


@BOTH
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["H", "I"])
def test_exif_of_either_byte_order_is_read(order: str, kind: str, options: DecodeOptions) -> None:
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    value = struct.pack(order + kind, 6).ljust(4, b"\0")
    code = {"H": 3, "I": 4}[kind]
    directory = struct.pack(order + "HHHI", 1, 274, code, 1) + value + bytes(4)
    data = jpeg_with_app1(b"Exif\0\0" + head + directory)
    assert decode(data, options).pixels.shape == (40, 24, 3)


@BOTH
def test_orientation_in_xmp_counts_when_exif_has_none(options: DecodeOptions) -> None:
    data = jpeg_with_app1(b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>')
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    assert decode(data, options).pixels.shape == (40, 24, 3)


@BOTH
@pytest.mark.parametrize(
    "exif", [b"", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\x01", b"junk", b"MM\0*"]
)
def test_damaged_exif_counts_as_none(exif: bytes, options: DecodeOptions) -> None:
    data = jpeg_with_app1(b"Exif\0\0" + exif)
    assert decode(data, options).pixels.shape == (24, 40, 3)


@BOTH
@pytest.mark.parametrize("size", [(1600, 1200), (401, 333), (640, 257), (2047, 256), (100, 80)])
@pytest.mark.parametrize("scale_to", [32, 100, 256])
def test_scaled_decoding_is_the_same_in_both_decoders(
    size: tuple[int, int], scale_to: int, options: DecodeOptions
) -> None:
    data = encode(draw(*size), "JPEG")
    decoded = decode(data, DecodeOptions(options.decoder, scale_to))
    reference = decode(data, DecodeOptions("pillow", scale_to))
    assert (decoded.width, decoded.height) == size
    np.testing.assert_array_equal(decoded.pixels, reference.pixels)
    short = min(decoded.pixels.shape[:2])
    factor = next((n for n in (8, 4, 2) if -(-min(size) // n) >= scale_to), 1)
    assert short == -(-min(size) // factor)


@pytest.mark.parametrize("scale_to", [None, 48])
def test_both_decoders_agree_on_photographs(cifar_data: Path, scale_to: int | None) -> None:
    photos = sorted(cifar_data.glob("photos/*.JPEG"))
    assert photos
    for photo in photos:
        data = photo.read_bytes()
        fast, pillow = (
            decode(data, DecodeOptions(name, scale_to)) for name in ("simplejpeg", "pillow")
        )
        np.testing.assert_array_equal(fast.pixels, pillow.pixels, err_msg=photo.name)


def test_scaled_decoding_resembles_the_whole_image() -> None:
    data = encode(draw(800, 640), "JPEG")
    whole = Image.fromarray(decode(data, PILLOW).pixels).resize((100, 80), Image.BOX)
    scaled = decode(data, DecodeOptions("simplejpeg", 80)).pixels
    assert np.abs(np.asarray(whole).astype(int) - scaled).mean() < 2


@BOTH
def test_grey_cmyk_and_rgb_jpegs_become_rgb(options: DecodeOptions) -> None:
    image = Image.fromarray(draw(40, 24))
    for mode in ("L", "CMYK", "YCbCr"):
        data = encode(image.convert(mode), "JPEG", quality=95)
        pixels = decode(data, options).pixels
        pillows = Image.open(io.BytesIO(data)).convert("RGB")
        np.testing.assert_array_equal(pixels, np.asarray(pillows))
        drawn = image.convert("L").convert("RGB") if mode == "L" else image
        assert np.abs(pixels.astype(int) - np.asarray(drawn)).mean() < 8


def test_palette_images_become_rgb() -> None:
    image = Image.fromarray(draw(40, 24)).quantize(64)
    np.testing.assert_array_equal(
        decode(encode(image, "PNG"), FAST).pixels, np.asarray(image.convert("RGB"))
    )


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_over_white(name: str) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[0, :, 3], rgba[1, :, 3] = 255, 128
    how = {"lossless": True} if name == "WEBP" else {}
    pixels = decode(encode(rgba, name, **how), FAST).pixels
    assert pixels[0, 0].tolist() == [200, 0, 0]
    assert pixels[1, 0].tolist() == [227, 127, 127]
    assert pixels[3, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["P", "RGB", "L", "1"])
def test_a_transparent_colour_becomes_white(mode: str) -> None:
    image = Image.new("L", (4, 4), 0).convert(mode)
    transparency = (0, 0, 0) if mode == "RGB" else 0
    data = encode(image, "PNG", transparency=transparency)
    assert decode(data, FAST).pixels.tolist() == np.full((4, 4, 3), 255).tolist()


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_high_byte(name: str) -> None:
    samples = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    pixels = decode(encode(Image.fromarray(samples), name), FAST).pixels
    np.testing.assert_array_equal(pixels, np.repeat((samples >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_samples_of_32_bits_are_unsupported(dtype: type) -> None:
    assert status_of(encode(Image.fromarray(np.zeros((4, 4), dtype)), "TIFF")) == "unsupported"


@pytest.mark.parametrize("name", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_frames_the_first_is_taken(name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], name, save_all=True, append_images=frames[1:])
    red, _, blue = decode(data, FAST).pixels[4, 4]
    assert red > 250
    assert blue < 5


@BOTH
@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_too_many_pixels_by_the_header_are_too_large(name: str, options: DecodeOptions) -> None:
    data = encode(draw(50, 40), name)
    assert status_of(data, DecodeOptions(options.decoder, max_pixels=2000)) == "ok"
    assert status_of(data, DecodeOptions(options.decoder, max_pixels=1999)) == "too_large"


@BOTH
def test_scans_are_held_against_the_pixels_that_are_allowed(options: DecodeOptions) -> None:
    data = many_scans(64, 20)
    assert status_of(data, DecodeOptions(options.decoder, max_pixels=4 * 64**2)) == "ok"
    assert status_of(data, DecodeOptions(options.decoder, max_pixels=64**2)) == "too_large"


@BOTH
def test_a_header_of_four_gigapixels_is_refused_before_decoding(options: DecodeOptions) -> None:
    data = bytearray(encode(draw(50, 40), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    assert status_of(bytes(data), options) == "too_large"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", "empty"),
        (b"plain text, not pixels", "not_an_image"),
        (b"%PDF-1.7\n", "not_an_image"),
        (bytes(4096), "not_an_image"),
        (b"BMW makes cars, and this is a text about them", "not_an_image"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "not_an_image"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "not_an_image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "unsupported"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "unsupported"),
        (b"\xff\x0a\xfa\x1f", "unsupported"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "unsupported"),
        (b"<?xml version='1.0'?>\n<SVG xmlns='http://www.w3.org/2000/svg'/>", "unsupported"),
        (b"\0\0\x01\0\x01\0\x10\x10", "unsupported"),
        (b"8BPS\0\x01", "unsupported"),
        (b"P6\n2 2\n255\n" + bytes(12), "unsupported"),
        (b"II*\0\x10\0\0\0CR\x02\0", "unsupported"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\xff\xd8\xff\xe0" + bytes(400) + b"\xff\xda\xff\xd9", "decode_failed"),
    ],
)
def test_bytes_get_their_status_whatever_the_decoder(data: bytes, status: str) -> None:
    assert status_of(data, PILLOW) == status
    assert status_of(data, FAST) == status


def test_a_jpeg_that_simplejpeg_refuses_goes_to_pillow() -> None:
    data = encode(draw(64, 48), "JPEG")
    at = len(data) - 40
    # libjpeg warns of bytes that belong to no segment, and simplejpeg makes that an error.
    odd = data[:2] + b"junk!" + data[2:at] + data[at:]
    assert status_of(odd, FAST) == status_of(odd, PILLOW)
    if status_of(odd, PILLOW) == "ok":
        np.testing.assert_array_equal(decode(odd, FAST).pixels, decode(odd, PILLOW).pixels)


def test_threads_decode_side_by_side() -> None:
    files = [encode(draw(60, 40, seed), name) for seed in range(8) for name in ("JPEG", "PNG")]
    expected = [decode(data, FAST).pixels for data in files]
    wrong: list[int] = []

    def work(offset: int) -> None:
        for index in range(len(files)):
            at = (index + offset) % len(files)
            if not np.array_equal(decode(files[at], FAST).pixels, expected[at]):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def png_samples(samples: NDArray[np.integer], depth: int, colour: int, interlaced: bool) -> bytes:
    """Write a PNG (H×W×C samples) without filters, in one pass or in Adam7's seven."""
    wide = samples.astype(">u2" if depth == 16 else np.uint8)
    starts = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    passes = [wide[y::dy, x::dx] for x, y, dx, dy in (*starts, (0, 1, 1, 2))]
    rows = [row for part in (passes if interlaced else [wide]) for row in part if row.size]
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(17, 13), (3, 2), (1, 1)])
def test_interlaced_pngs_give_the_pixels_of_plain_ones(size: tuple[int, int]) -> None:
    drawn = draw(*size)
    for interlaced in (False, True):
        data = png_samples(drawn, 8, 2, interlaced)
        np.testing.assert_array_equal(decode(data, FAST).pixels, drawn)


def test_pngs_of_sixteen_bits_and_colours_keep_their_high_bytes() -> None:
    high = draw(9, 7, channels=4).astype(np.uint16)
    samples = high * 256 + 255
    pixels = decode(png_samples(samples[..., :3], 16, 2, True), FAST).pixels
    np.testing.assert_array_equal(pixels, high[..., :3])
    over_white = decode(png_samples(samples, 16, 6, False), FAST).pixels
    eight_bits = decode(encode(high.astype(np.uint8), "PNG"), FAST).pixels
    np.testing.assert_array_equal(over_white, eight_bits)


@BOTH
def test_ycck_jpegs_become_rgb(options: DecodeOptions) -> None:
    """Adobe's mark says that four channels are YCbCr and black; inks are stored inverted."""
    inks = np.asarray(Image.fromarray(draw(40, 24)).convert("CMYK")).copy()
    inks[..., :3] = draw(40, 24, seed=1)
    inks[..., 3] = 40
    luma_chroma = np.asarray(Image.fromarray(inks[..., :3].copy()).convert("YCbCr"))
    stored = np.dstack([luma_chroma, 255 - inks[..., 3]])
    data = bytearray(encode(Image.frombytes("CMYK", (40, 24), 255 - stored), "JPEG", quality=98))
    data[data.index(b"Adobe") + 11] = 2
    pixels = decode(bytes(data), options).pixels
    black = (255 - 40) / 255
    expected = (255 - inks[..., :3].astype(float)) * black
    assert np.abs(pixels - expected).mean() < 6


def test_palette_images_with_alpha_are_composited_over_white() -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.putdata([0, 1, 2, 2])
    data = encode(image, "PNG", transparency=bytes([0, 255, 128]))
    pixels = decode(data, FAST).pixels[0].tolist()
    assert pixels[0] == [255, 255, 255]
    assert pixels[1] == [0, 200, 0]
    assert pixels[2] == [127, 127, 227]
