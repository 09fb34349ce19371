import torch

from cifar_ray.config.training import AugmentConfig
from cifar_ray.training.augment import augment, cutout, flip_where, scale_to, translate

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
