import pytest
import torch

from cifar_ray.config.recipes import get_recipe
from cifar_ray.config.training import TrainingConfig, override
from cifar_ray.training.batches import Batch, Batches
from cifar_ray.training.data.dataset import LabelledImages

STATISTICS = ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
WAYS = {
    "plain": (),
    "augmented": ("augment.flip=random", "augment.translate_px=2", "augment.zoom=0.2"),
    "mixed": ("augment.mixup_alpha=1", "augment.cutmix_alpha=1"),
    "small": ("small_image_px=16", "small_image_fraction=0.5"),
}


def drawn(number: int) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (number, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return LabelledImages(images, torch.arange(number), tuple(map(str, range(number))), (32,) * 4)


def batches_of(config: TrainingConfig, data: LabelledImages, rank: int, of: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return list(Batches(config, STATISTICS, rank, of).epoch(0, data, generator))


@pytest.mark.parametrize("way", WAYS)
def test_the_shares_of_two_ranks_are_the_batches_of_one(way: str) -> None:
    config = override(get_recipe("cnn-122k"), ["batch_size=7", *WAYS[way]])
    data = drawn(40)
    whole = batches_of(config, data, 0, 1)
    shares = [batches_of(config, data, rank, 2) for rank in range(2)]
    assert [batch.num_images for batch in whole] == [7] * 5 + [5]
    for batch, even, odd in zip(whole, *shares, strict=True):
        assert len(even.labels) + len(odd.labels) == batch.num_images == even.num_images
        assert torch.equal(batch.inputs[0::2], even.inputs)
        assert torch.equal(batch.inputs[1::2], odd.inputs)
        assert torch.equal(batch.labels[1::2], odd.labels)
        if batch.mixed_in is not None:
            assert odd.mixed_in is not None
            assert torch.equal(batch.mixed_in[1::2], odd.mixed_in)
            assert batch.kept == odd.kept


def test_an_epoch_shows_every_image_once() -> None:
    data = drawn(40)
    seen = torch.cat([b.labels for b in batches_of(get_recipe("cnn-122k"), data, 0, 1)])
    assert sorted(seen.tolist()) == list(range(40))
    assert seen.tolist() != list(range(40))


def test_a_last_batch_of_one_image_is_left_out_since_batch_norm_cannot_take_it() -> None:
    config = override(get_recipe("cnn-122k"), ["batch_size=13"])
    assert [batch.num_images for batch in batches_of(config, drawn(40), 0, 1)] == [13, 13, 13]


def test_small_images_end_with_their_share_of_the_epochs() -> None:
    config = override(get_recipe("cnn-122k"), ["batch_size=20", "epochs=4", *WAYS["small"]])
    batches = Batches(config, STATISTICS, 0, 1)
    sides = [
        next(batches.epoch(epoch, drawn(40), torch.Generator())).inputs.shape[-1]
        for epoch in range(4)
    ]
    assert sides == [16, 16, 32, 32]
