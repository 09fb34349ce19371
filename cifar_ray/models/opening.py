"""A model by what users call it: none, `torchvision:NAME`, a bundle, or a run that made one."""

from pathlib import Path

from cifar_ray.errors import InputError
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.fetching import fetch_bundle
from cifar_ray.models.pretrained import torchvision_bundle
from cifar_ray.models.torchvision_table import PREFIX
from cifar_ray.runs import TrainingRun
from cifar_ray.storage import S3_SCHEME
from cifar_ray.storage.folder_faults import folder_faults


def open_bundle(place: str | None, weights: Path | None = None) -> Bundle:
    """Return the model in the box, one of torchvision's, or a bundle here or in a bucket.

    A place may be a training run or a search, too. `weights` are torchvision's, as a file or a
    folder of files. Raises `InputError` where there is no model, a damaged one, or one that has
    its weights already.
    """
    if place is not None and place.startswith(PREFIX):
        return torchvision_bundle(place.removeprefix(PREFIX), weights)
    if weights is not None:
        raise InputError(
            f"--weights {weights} goes with --model {PREFIX}NAME, and the model is "
            f"{place or 'the one in the box'}. Name torchvision's network, or make a bundle of the "
            "weights (`cifar-ray import`)."
        )
    if place is None:
        return Bundle.default()
    if place.startswith(S3_SCHEME):
        return Bundle.load(fetch_bundle(place))
    path = Path(place).expanduser()
    inside = TrainingRun(path).bundle
    with folder_faults(path):
        return Bundle.load(inside if inside.is_dir() else path)
