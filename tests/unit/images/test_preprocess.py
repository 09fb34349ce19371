import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from cifar_ray.errors import ImageFault
from cifar_ray.images.preprocess import Preprocess
from tests.unit.images.drawn import draw

GREY = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
SIZES = [(500, 375), (375, 500), (257, 256), (256, 999), (33, 31), (32, 32), (1, 7), (1023, 767)]


def torchvisions(pixels: np.ndarray, resize: object, crop: int | None, mode: str) -> np.ndarray:
    transforms = pytest.importorskip("torchvision.transforms")
    steps = [transforms.Resize(resize, interpolation=transforms.InterpolationMode(mode))]
    if crop is not None:
        steps.append(transforms.CenterCrop(crop))
    return np.asarray(transforms.Compose(steps)(Image.fromarray(pixels)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(
    ("resize", "crop"), [(256, 224), (232, 224), (32, 32), (255, 224), (33, 8)]
)
def test_resize_and_crop_give_torchvisions_bytes(
    size: tuple[int, int], mode: str, resize: int, crop: int
) -> None:
    pixels = draw(*size)
    preprocess = Preprocess(resize=resize, crop=crop, interpolation=mode, **GREY)
    result = preprocess.apply(pixels)
    np.testing.assert_array_equal(result, torchvisions(pixels, resize, crop, mode))
    assert result.shape == (crop, crop, 3)
    assert result.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", [None, 24])
def test_squash_gives_torchvisions_bytes(size: tuple[int, int], crop: int | None) -> None:
    pixels = draw(*size)
    preprocess = Preprocess(squash=32, crop=crop, **GREY)
    expected = torchvisions(pixels, (32, 32), crop, "bilinear")
    np.testing.assert_array_equal(preprocess.apply(pixels), expected)


def test_pixels_of_the_right_size_are_returned_as_they_are() -> None:
    pixels = draw(32, 32)
    assert Preprocess(squash=32, **GREY).apply(pixels) is pixels
    assert Preprocess(resize=32, crop=32, **GREY).apply(pixels) is pixels


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "one of resize"),
        ({"resize": 32, "squash": 32}, "one of resize"),
        ({"resize": 32}, "needs crop"),
        ({"resize": 32, "crop": 33}, "larger"),
        ({"squash": 32, "std": (0.1, 0.1, 0.0)}, "std"),
        ({"squash": 32, "sharpen": 1}, "sharpen"),
        ({"squash": 0}, "greater than 0"),
    ],
)
def test_preprocessing_that_gives_no_square_is_refused(fields: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Preprocess(**{**GREY, **fields})


def test_decoding_keeps_the_resize_target_not_the_crop() -> None:
    preprocess = Preprocess(resize=256, crop=224, **GREY)
    assert preprocess.input_size == 224
    assert preprocess.decode_options("simplejpeg", scaling=True).scale_to == 256
    assert preprocess.decode_options("simplejpeg", scaling=False).scale_to is None


def test_small_inputs_come_from_far_larger_pixels() -> None:
    assert Preprocess(squash=32, **GREY).decode_options("pillow", scaling=True).scale_to == 256
    large = Preprocess(resize=384, crop=384, **GREY)
    assert large.decode_options("pillow", scaling=True).scale_to == 384


def test_a_line_of_pixels_is_a_fault_of_the_image_and_takes_no_memory() -> None:
    narrow = np.zeros((60_000, 1, 3), np.uint8)
    for pixels in (narrow, narrow.swapaxes(0, 1)):
        with pytest.raises(ImageFault, match="too narrow") as fault:
            Preprocess(resize=256, crop=224, **GREY).apply(pixels)
        assert fault.value.status == "too_large"
        assert Preprocess(squash=32, **GREY).apply(pixels).shape == (32, 32, 3)
        assert Preprocess(resize=32, crop=32, **GREY).apply(pixels).shape == (32, 32, 3)
