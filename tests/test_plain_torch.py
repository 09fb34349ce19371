"""Somebody's own ResNet-18, trained and saved by plain PyTorch, labels as plain PyTorch does."""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional
from typer.testing import CliRunner

from cifar_ray.cli.main import app
from cifar_ray.images.labels import CIFAR10

STEPS, BATCH, SIDE = 120, 64, 64
NEAR_TIE = 0.05
"""Two classes whose probabilities are closer than that may change places by rounding."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def train_images(cifar_data: Path, number: int) -> Iterator[tuple[str, bytes, int]]:
    table = pq.read_table(cifar_data / "cifar10" / "train.parquet")
    step = len(table) // number
    for row in range(0, step * number, step):
        yield tuple(table[name][row].as_py() for name in ("path", "image", "label"))


@pytest.fixture(scope="module")
def weights(cifar_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 that has learnt something: most of what it is shown, it labels right."""
    import numpy as np
    import torchvision
    from PIL import Image

    torch.manual_seed(0)
    rows = list(train_images(cifar_data, 4000))
    pixels = np.stack(
        [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _, data, _ in rows]
    )
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    images = (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    labels = torch.tensor([label for _, _, label in rows])
    network = torchvision.models.resnet18(num_classes=10)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(STEPS):
        chosen = torch.randint(0, len(images), (BATCH,))
        batch = functional.interpolate(images[chosen], size=SIDE, mode="bilinear")
        loss = functional.cross_entropy(network(batch), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.eval().state_dict(), path)
    return path


def plain_labels(weights: Path, paths: list[Path]) -> dict[str, tuple[str, float]]:
    """The ten lines of plain PyTorch: each label, and how far the next one is behind it."""
    import torchvision
    from PIL import Image
    from torchvision import transforms

    network = torchvision.models.resnet18(num_classes=10)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval()
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])
    labels = {}
    with torch.no_grad():
        for path in paths:
            image = transform(Image.open(path).convert("RGB"))
            scores, order = network(image[None])[0].softmax(0).topk(2)
            labels[path.name] = CIFAR10[order[0]], float(scores[0] - scores[1])
    return labels


@pytest.fixture(scope="module")
def bundle(weights: Path) -> Path:
    """The same weights, imported as a user would."""
    labels = weights.with_name("labels.txt")
    labels.write_text("\n".join(CIFAR10))
    out = weights.with_name("bundle")
    invoke("import", weights, "--network", "resnet18", "--labels", labels, "--out", out)
    return out


def invoke(*arguments: object) -> None:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_imported_weights_label_photos_and_small_images_as_plain_torch_does(
    cifar_data: Path,
    weights: Path,
    bundle: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for path in (cifar_data / "photos").glob("*.JPEG"):
        (store / path.name).symlink_to(path)
    for name, data, _ in train_images(cifar_data, 1000):
        (store / name.replace("/", "-")).write_bytes(data)
    plain = plain_labels(weights, list(store.iterdir()))
    ours = labels_of(store, bundle, tmp_path / "float32", "float32")
    assert ours == {name: label for name, (label, _) in plain.items()}
    assert len(ours) == 1096
    assert Counter(ours.values()).most_common(1)[0][1] < 548

    rounded = labels_of(store, bundle, tmp_path / "bfloat16", "bfloat16")
    others = {name for name, label in rounded.items() if label != plain[name][0]}
    near_ties = {name for name, (_, margin) in plain.items() if margin < NEAR_TIE}
    record_property("bfloat16", f"{len(others)} other labels, {len(near_ties)} near-ties")
    assert others <= near_ties
    assert len(near_ties) < 0.1 * len(plain)


def labels_of(store: Path, bundle: Path, out: Path, precision: str) -> dict[str, str]:
    invoke("predict", store, "--out", out, "--model", bundle, "--precision", precision)
    table = pq.read_table(out / "predictions").to_pydict()
    return dict(zip(table["key"], table["label"], strict=True))


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_either_engine_and_any_number_of_workers_write_the_same_bytes(
    cifar_data: Path, bundle: Path, tmp_path: Path
) -> None:
    written = []
    for engine in ("local", "ray"):
        for workers in (1, 2):
            out = tmp_path / f"{engine}-{workers}"
            options = ("--engine", engine, "--workers", workers, "--images-per-shard", 24)
            source = (cifar_data / "photos", "--exclude", "*.md")
            invoke("predict", *source, "--out", out, "--model", bundle, *options)
            parts = sorted((out / "predictions").iterdir())
            written.append({part.name: part.read_bytes() for part in parts})
    assert len(written[0]) == 4
    assert all(parts == written[0] for parts in written)
