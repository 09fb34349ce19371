"""Makes an OpenVINO graph of a bundle; needs torch, which running the graph does not."""

import warnings
from pathlib import Path

import openvino as ov
import torch
from torch import Tensor, nn

from cifar_ray.models.bundle import Bundle
from cifar_ray.models.classifier import Classifier


class _WithFeatures(nn.Module):
    """Gives logits and features, where the classifier's own forward gives logits."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.classifier.logits_and_features(images)


def convert(bundle: Bundle, batch_size: int | None, graph: Path) -> None:
    """Write the graph, uint8 B×S×S×3 to float32 logits and features; B stays open with None."""
    preprocess = bundle.spec.preprocess
    classifier = Classifier(bundle.network(), preprocess.mean, preprocess.std)
    traced = classifier if classifier.head is None else _WithFeatures(classifier)
    size = preprocess.input_size
    example = torch.zeros(batch_size or 2, size, size, 3, dtype=torch.uint8)
    shape = [batch_size or -1, size, size, 3]
    with warnings.catch_warnings(), torch.no_grad():
        # torch deprecates tracing, which is how OpenVINO reads a module.
        warnings.simplefilter("ignore")
        model = ov.convert_model(traced.eval(), example_input=example, input=[(shape, ov.Type.u8)])
    ov.save_model(model, graph, compress_to_fp16=False)
