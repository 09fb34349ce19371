import numpy as np
import torch
from PIL import Image
from torch import nn

from cifar_ray.models import registry
from cifar_ray.models.classifier import Classifier, last_linear, normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def test_normalisation_is_torchvisions_to_the_bit() -> None:
    from torchvision import transforms

    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    batch = images(2, 16)
    expected = torch.stack([theirs(Image.fromarray(image.numpy())) for image in batch])
    result = normalise(batch, MEAN, STD)
    np.testing.assert_array_equal(result.numpy(), expected.numpy())
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_features_are_what_the_head_turns_into_logits() -> None:
    network = registry.build("cnn-122k", 10).eval()
    classifier = Classifier(network, MEAN, STD).eval()
    with torch.no_grad():
        logits, features = classifier.logits_and_features(images(3, 32))
        assert features is not None
        assert features.shape == (3, 64)
        head = last_linear(network)
        assert head is not None
        torch.testing.assert_close(head(features), logits)
        torch.testing.assert_close(classifier(images(3, 32)), logits, rtol=0, atol=0)


def test_a_network_that_ends_in_a_convolution_has_no_features() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1))
    assert last_linear(network) is None


def test_bfloat16_weights_take_uint8_and_give_float32() -> None:
    classifier = Classifier(registry.build("cnn-122k", 10).bfloat16().eval(), MEAN, STD)
    with torch.no_grad():
        logits, features = classifier.logits_and_features(images(2, 32))
    assert features is not None
    assert logits.dtype == features.dtype == torch.float32
