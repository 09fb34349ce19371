import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from cifar_ray.config.augmentation import AugmentConfig
from cifar_ray.training.augmentation.augment import augment, cutout, flip_where, scale_to, translate
from cifar_ray.training.augmentation.geometry import resample
from cifar_ray.training.augmentation.mixing import draw_mix
from cifar_ray.training.augmentation.randaugment import (
    OPERATIONS,
    _autocontrast,
    _equalize,
    randaugment,
)

IMAGES = torch.randint(0, 256, (64, 32, 32, 3), dtype=torch.uint8)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_two_epochs_of_alternate_flips_show_each_image_both_ways_once() -> None:
    config = AugmentConfig(flip="alternate")
    indices = torch.arange(64)
    even, odd = (augment(IMAGES, indices, epoch, config, generator()) for epoch in (0, 1))
    same = (even == IMAGES).flatten(1).all(dim=1)
    assert 16 < int(same.sum()) < 48
    assert torch.equal(odd, flip_where(IMAGES, same))
    assert torch.equal(augment(IMAGES, indices, 2, config, generator()), even)


def test_translation_moves_pixels_by_whole_steps_and_keeps_them() -> None:
    moved = translate(IMAGES, 4, generator())
    assert moved.shape == IMAGES.shape
    assert moved.dtype == torch.uint8
    for before, after in zip(IMAGES[:8], moved[:8], strict=True):
        middle = after[8:24, 8:24]
        found = [
            (dy, dx)
            for dy in range(-4, 5)
            for dx in range(-4, 5)
            if torch.equal(before[8 + dy : 24 + dy, 8 + dx : 24 + dx], middle)
        ]
        assert len(found) == 1


def test_cutout_sets_one_square_to_one_colour_and_leaves_the_rest() -> None:
    cut = cutout(IMAGES, 8, generator())
    changed = (cut != IMAGES).any(dim=-1)
    assert int(changed.flatten(1).sum(dim=1).max()) <= 64
    for mask in changed[:8]:
        rows, columns = torch.nonzero(mask, as_tuple=True)
        assert int(rows.max() - rows.min()) < 8
        assert int(columns.max() - columns.min()) < 8


def test_the_same_generator_gives_the_same_images() -> None:
    config = AugmentConfig(flip="random", translate_px=2, cutout_px=6)
    one, two = (augment(IMAGES, torch.arange(64), 0, config, generator()) for _ in range(2))
    assert torch.equal(one, two)


def test_nothing_asked_for_is_nothing_done() -> None:
    assert augment(IMAGES, torch.arange(64), 0, AugmentConfig(), generator()) is IMAGES


def test_scaling_keeps_the_mean() -> None:
    planes = IMAGES.permute(0, 3, 1, 2).float()
    small = scale_to(planes, 24)
    assert small.shape == (64, 3, 24, 24)
    assert abs(float(small.mean() - planes.mean())) < 1


def test_a_crop_of_an_image_padded_with_zeros_brings_in_black() -> None:
    white = torch.full((64, 8, 8, 3), 255, dtype=torch.uint8)
    moved = translate(white, 4, generator(), "zeros")
    assert set(moved.unique().tolist()) == {0, 255}
    rows = (moved[..., 0] == 255).any(dim=2).sum(dim=1)
    assert (int(rows.min()), int(rows.max())) == (4, 8)


def smooth_images() -> torch.Tensor:
    """Images of a bright disc at the place (12, 16) (x, y)."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    disc = 255 * torch.exp(-((x - 12) ** 2 + (y - 16) ** 2) / 12.0)
    return disc.to(torch.uint8).view(1, 32, 32, 1).repeat(200, 1, 1, 3)


def centres(images: torch.Tensor) -> torch.Tensor:
    """Return the discs' centres (N×2: x, y)."""
    weights = images[..., 0].double()
    place = torch.arange(32, dtype=torch.float64)
    total = weights.sum(dim=(1, 2))
    return torch.stack(
        [(weights.sum(dim=1) * place).sum(dim=1), (weights.sum(dim=2) * place).sum(dim=1)], 1
    ) / total.unsqueeze(1)


@pytest.mark.parametrize(
    ("config", "reach_px"),
    [
        (AugmentConfig(shift=0.1), 3.2 * 2**0.5),
        (AugmentConfig(rotation_degrees=15), 0.95),
        (AugmentConfig(zoom=0.1), 0.4),
    ],
    ids=["shift", "rotation", "zoom"],
)
def test_turning_zooming_and_shifting_stay_within_their_reach_and_use_it(
    config: AugmentConfig, reach_px: float
) -> None:
    images = smooth_images()
    moved = augment(images, torch.arange(200), 0, config, generator())
    distances = (centres(moved) - centres(images)).norm(dim=1)
    assert 0.6 * reach_px < float(distances.max()) < reach_px * 1.1
    assert float(distances.std()) > 0.1 * reach_px
    assert moved.dtype == torch.uint8


def test_an_unmoved_matrix_leaves_images_as_they_are() -> None:
    assert torch.equal(resample(IMAGES, torch.eye(2, 3).repeat(64, 1, 1)), IMAGES)


def test_randaugment_changes_images_each_in_its_own_way_and_by_the_generator() -> None:
    one, two = (randaugment(IMAGES, 2, 9.0, generator()) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == IMAGES.shape
    assert one.dtype == torch.uint8
    changed = (one != IMAGES).flatten(1).any(dim=1)
    assert 0.7 < float(changed.float().mean()) <= 1


def test_without_strength_only_operations_that_have_none_change_an_image() -> None:
    images, nothing = smooth_images()[:4] // 2 + 30, torch.zeros(4)
    changing = [op for op in OPERATIONS if not torch.equal(op(images, nothing), images)]
    assert changing == [_autocontrast, _equalize]


@pytest.mark.parametrize(
    ("ours", "theirs"), [(_equalize, ImageOps.equalize), (_autocontrast, ImageOps.autocontrast)]
)
def test_histogram_operations_are_those_of_pillow(ours: object, theirs: object) -> None:
    images = (IMAGES[:8].float() * 0.4 + 50).to(torch.uint8)
    found = ours(images, torch.ones(8))  # type: ignore[operator]
    for image, changed in zip(images, found, strict=True):
        expected = np.asarray(theirs(Image.fromarray(image.numpy())))  # type: ignore[operator]
        assert int((changed.int() - torch.tensor(expected).int()).abs().max()) <= 1


def test_mixup_blends_pairs_by_the_share_that_the_loss_gets() -> None:
    mix = draw_mix(AugmentConfig(mixup_alpha=1.0), 16, 8, generator())
    images = torch.rand(16, 3, 8, 8)
    mixed = mix.apply(images, images[mix.partners])
    assert sorted(mix.partners.tolist()) == list(range(16))
    expected = mix.kept * images + (1 - mix.kept) * images[mix.partners]
    torch.testing.assert_close(mixed, expected)


def test_cutmix_takes_a_rectangle_as_large_as_the_loss_says() -> None:
    images, others = torch.zeros(4, 3, 16, 16), torch.ones(4, 3, 16, 16)
    rng = generator()
    shares = set()
    for _ in range(20):
        mix = draw_mix(AugmentConfig(cutmix_alpha=1.0), 4, 16, rng)
        mixed = mix.apply(images, others)
        assert float(mixed.mean()) == pytest.approx(1 - mix.kept, abs=1e-6)
        shares.add(mix.kept)
    assert len(shares) > 10
