"""Which random changes training images get."""

from typing import Literal

from pydantic import Field

from cifar_ray.config.frozen import Fraction, FrozenConfig


class AugmentConfig(FrozenConfig):
    """Random changes of training images, drawn on the device for a batch at a time.

    They are applied in the order of the fields. `mixup_alpha` and `cutmix_alpha` mix pairs of a
    batch; with both, each batch draws which.
    """

    flip: Literal["none", "random", "alternate"] = "none"
    """Left to right; `alternate` flips each image in every second epoch, so that two epochs see
    both views."""
    rotation_degrees: float = Field(0.0, ge=0, le=180)
    """Rotate by up to so much each way; what comes in from outside repeats the edge."""
    zoom: Fraction = 0.0
    """Scale each side by a factor between 1 − zoom and 1 + zoom."""
    shift: Fraction = 0.0
    """Shift by up to this share of the side each way; what comes in repeats the edge."""
    translate_px: int = Field(0, ge=0)
    """Shift by up to so many whole pixels each way, as a crop of the padded image does."""
    padding: Literal["reflect", "zeros"] = "reflect"
    """What `translate_px` brings in."""
    randaugment_ops: int = Field(0, ge=0)
    """RandAugment: so many operations an image, drawn from its list."""
    randaugment_magnitude: float = Field(9.0, ge=0, le=30)
    cutout_px: int = Field(0, ge=0)
    """Side of the square that is set to the mean colour."""
    mixup_alpha: float = Field(0.0, ge=0)
    cutmix_alpha: float = Field(0.0, ge=0)
