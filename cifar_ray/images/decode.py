"""From a file's bytes to H×W×3 uint8 pixels, the one way for training, labelling and serving.

Read are JPEG (with MPO), PNG, WebP, GIF, BMP and TIFF, told by their first bytes; of several frames
or pages the first. Pillow is the reference. `simplejpeg` is the fast path for JPEG of one or three
channels: both are libjpeg-turbo and give the same pixels (a test compares them), scaled or not.

- Grey, palette, CMYK and YCbCr become RGB by Pillow's `convert`; colour profiles are not applied.
- Alpha, in whatever form, is composited over white.
- 16-bit samples keep their high byte; 32-bit integer and float samples are `unsupported`.
- Orientation (EXIF, else XMP) is applied; a damaged EXIF block counts as none.
- With `scale_to`, a JPEG is decoded at 1/2, 1/4 or 1/8 (DCT scaling) as far as its short side stays
  at or above that; other formats are decoded in full.
- A file that ends early is `truncated`, never padded. So is a JPEG whose data stop before its end
  marker, which only `simplejpeg` notices: Pillow hides libjpeg's warnings.

Thread-safe.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar_ray.errors import ImageFault
from cifar_ray.images.formats import Format, is_cut_short, sniff
from cifar_ray.images.jpeg_header import JpegHeader, read_jpeg_header
from cifar_ray.images.tiff_tags import ORIENTATION

try:
    import simplejpeg
except ModuleNotFoundError:  # no wheel for this platform: the decoder is then "pillow"
    simplejpeg = None

Decoder = Literal["pillow", "simplejpeg"]
Pixels = NDArray[np.uint8]

# Pillow tells of odd EXIF, large images and the like; a row's status says what a reader needs.
warnings.filterwarnings("ignore", module=r"PIL(\.|$)")

MAX_PIXELS = 178_956_970
"""Where Pillow refuses by default: a half gibibyte of RGB."""
MAX_SCANS = 1000
"""Of a progressive JPEG, which has some ten. Each is a pass over all pixels, for a few bytes."""
MAX_SCANS_OF_LARGEST = 16
"""Of a progressive JPEG with as many pixels as are allowed; a smaller one may have more."""
START_OF_SCAN = b"\xff\xda"

PILLOW_FAULTS = (
    OSError,  # the usual one, with UnidentifiedImageError
    SyntaxError,  # a broken header
    ValueError,
    TypeError,
    ArithmeticError,  # sizes of zero or beyond C's integers
    LookupError,  # codes outside their tables
    AttributeError,
    EOFError,
    NotImplementedError,  # a variant of a format
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
    MemoryError,  # a header that promises more than there is
)
"""What Pillow's plugins let through for bytes that are not as they should be. Their parsers index,
unpack and look up what the file says, so each of these is the file's doing, not the program's."""


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How to decode. `scale_to`: pixels that the short side must keep; None decodes in full."""

    decoder: Decoder = "pillow"
    scale_to: int | None = None
    max_pixels: int = MAX_PIXELS


class DecodedImage(NamedTuple):
    """Pixels (H×W×3 uint8), and the size in the file's header after orientation, before scaling."""

    pixels: Pixels
    width: int
    height: int


def decode(data: bytes, options: DecodeOptions) -> DecodedImage:
    """Decode one image.

    Raises `ImageFault` with status `empty`, `not_an_image`, `unsupported`, `truncated`,
    `too_large` or `decode_failed`, and nothing else whatever the bytes are.
    """
    name = sniff(data)
    header = read_jpeg_header(data) if name == "JPEG" else None
    if header is not None:
        _check_size(header.width, header.height, options)
        if header.progressive:
            _check_scans(data, header, options)
        if options.decoder == "simplejpeg" and header.num_channels in (1, 3):
            pixels = _decode_with_simplejpeg(data, header, options)
            if pixels is not None:
                return _oriented(pixels, header.width, header.height, header.orientation)
    try:
        return _decode_with_pillow(data, name, header, options)
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    except PILLOW_FAULTS as error:
        if is_cut_short(data, name):
            raise _truncated() from error
        raise ImageFault("decode_failed", f"the {name} data are damaged") from error


def _decode_with_simplejpeg(
    data: bytes, header: JpegHeader, options: DecodeOptions
) -> Pixels | None:
    """Return pixels, or None where Pillow shall say what the file is worth."""
    factor = _scale_factor(header.width, header.height, options.scale_to)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            data,
            min_height=-(-header.height // factor),
            min_width=-(-header.width // factor),
            min_factor=factor,
        )
    except (ValueError, MemoryError) as error:
        if "premature end" in str(error).lower():
            raise _truncated() from error
        return None
    return pixels


def _decode_with_pillow(
    data: bytes, name: Format, header: JpegHeader | None, options: DecodeOptions
) -> DecodedImage:
    with Image.open(io.BytesIO(data), formats=(name,)) as image:
        width, height = image.size
        _check_size(width, height, options)
        factor = _scale_factor(width, height, options.scale_to) if name == "JPEG" else 1
        if factor > 1:
            image.draft(None, (width // factor, height // factor))
        image.load()
        pixels = _to_rgb(image)
        orientation = header.orientation if header is not None else _orientation(image)
    return _oriented(pixels, width, height, orientation)


def _check_size(width: int, height: int, options: DecodeOptions) -> None:
    if width * height > options.max_pixels:
        raise _too_large()


def _check_scans(data: bytes, header: JpegHeader, options: DecodeOptions) -> None:
    scans = data.count(START_OF_SCAN)
    most = MAX_SCANS_OF_LARGEST * options.max_pixels
    if scans > MAX_SCANS or scans * header.width * header.height > most:
        raise ImageFault("too_large", "the image has more scans than are allowed")


def _scale_factor(width: int, height: int, scale_to: int | None) -> int:
    """Return the largest of 8, 4, 2, 1 that leaves `scale_to` pixels on the short side."""
    if not scale_to or min(width, height) < 2 * scale_to - 1:
        return 1
    return next((n for n in (8, 4, 2) if -(-min(width, height) // n) >= scale_to), 1)


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16"):
        samples = np.asarray(image)
        grey = (samples >> 8).astype(np.uint8)
        if "transparency" in image.info:
            grey[samples == image.info["transparency"]] = 255
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ImageFault("unsupported", "32-bit samples are not read; convert them to 8 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return np.asarray(image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except PILLOW_FAULTS:
        return 1  # a damaged EXIF block is not a damaged picture
    return value if isinstance(value, int) else 1


def _oriented(pixels: Pixels, width: int, height: int, orientation: int) -> DecodedImage:
    """Apply the orientation (EXIF 2.32, section 4.6.4, tag 274); unknown ones count as 1."""
    if not 2 <= orientation <= 8:
        return DecodedImage(pixels, width, height)
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
        width, height = height, width
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return DecodedImage(np.ascontiguousarray(pixels), width, height)


def _truncated() -> ImageFault:
    return ImageFault("truncated", "the file ends before its image does")


def _too_large() -> ImageFault:
    return ImageFault("too_large", "the image has more pixels than are allowed")
