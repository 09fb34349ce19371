"""A bundle: a folder with weights and all that is needed to use them.

    model.safetensors   the network's state_dict
    bundle.json         `BundleRecord`, and the digest of its content
    int8.xml, int8.bin  where `quantize` made it: an OpenVINO graph that computes in int8

Loading it reads and checks all files but no torch; `network()` does.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from cifar_ray import __version__
from cifar_ray.errors import InputError
from cifar_ray.models import registry, self_test
from cifar_ray.models.bundle_spec import FORMAT_VERSION, BundleRecord, BundleSpec, Int8Record
from cifar_ray.storage.folder_faults import folder_faults

if TYPE_CHECKING:
    from torch import nn

WEIGHTS_FILE, RECORD_FILE = "model.safetensors", "bundle.json"
INT8_GRAPH_FILE, INT8_WEIGHTS_FILE = "int8.xml", "int8.bin"
_DIGEST_KEY = "content_sha256"
_REMEDY = (
    "Take the bundle again from where it came, or make it again (`cifar-ray train`, `import`)."
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files were checked against their digests."""

    path: Path
    spec: BundleRecord
    digest: str
    """SHA-256 over the digests of all files' content, in hexadecimal."""

    @property
    def id(self) -> str:
        """Name it in rows: network and the digest's beginning."""
        return f"{self.spec.network.replace(':', '-')}-{self.digest[:12]}"

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Open a bundle's folder; `InputError` if it is none, damaged or of another version."""
        path = Path(path)
        with folder_faults(path):
            content = _read_record(path)
        content_sha256 = content.pop(_DIGEST_KEY, None)
        if content_sha256 != _content_sha256(content):
            raise InputError(f"{path / RECORD_FILE} was changed since it was made. {_REMEDY}")
        spec = _validate(content, path)
        registry.get(spec.network)
        for name, sha256 in _files(spec).items():
            if file_sha256(path / name) != sha256:
                raise InputError(f"{path / name} was changed since it was made. {_REMEDY}")
        digest = hashlib.sha256(f"{spec.model_sha256}{content_sha256}".encode()).hexdigest()
        return cls(path, spec, digest)

    @classmethod
    def default(cls) -> Self:
        """Open the model in the box."""
        return cls.load(Path(str(resources.files("cifar_ray.models"))) / "box")

    def network(self) -> "nn.Module":
        """Build the network in float32 and eval mode, with its weights."""
        from cifar_ray.models.weights import load_network  # torch, which few callers need

        num_classes = len(self.spec.labels)
        return load_network(self.spec.network, num_classes, self.path / WEIGHTS_FILE)

    def check(self) -> None:
        """Run the self-test in float32; `InputError` if it does not give what it gave when made."""
        cases = self.spec.self_test
        images = self_test.case_images(cases)
        remembered = [case.probabilities for case in cases]
        difference = self_test.largest_difference(remembered, _probabilities(self, images))
        if not difference <= self_test.REFERENCE_TOLERANCE:
            raise InputError(
                f"The self-test of {self.path} fails: probabilities differ by {difference:.2g} from"
                f" those when it was made (allowed: {self_test.REFERENCE_TOLERANCE}). {_REMEDY}"
            )

    def copy_to(self, folder: Path) -> "Bundle":
        """Copy it whole or not at all; a copy that is there already is left as it is."""
        if folder.exists():
            copy = Bundle.load(folder)
            if copy.digest != self.digest:
                raise InputError(f"{folder} holds another bundle, {copy.id}, not {self.id}.")
            return copy
        with _folder_made_whole(folder) as unfinished:
            for name in (*_files(self.spec), RECORD_FILE):
                shutil.copyfile(self.path / name, unfinished / name)
        return Bundle.load(folder)

    def with_int8(self, graph: Path, int8: Int8Record, folder: Path) -> "Bundle":
        """Write a bundle that has an int8 graph (`.xml`, its `.bin` beside it) besides.

        Raises `InputError` if `folder` exists.
        """
        refuse_existing(folder)
        with _folder_made_whole(folder) as unfinished:
            shutil.copyfile(self.path / WEIGHTS_FILE, unfinished / WEIGHTS_FILE)
            shutil.copyfile(graph, unfinished / INT8_GRAPH_FILE)
            shutil.copyfile(graph.with_suffix(".bin"), unfinished / INT8_WEIGHTS_FILE)
            _write_record(unfinished, self.spec.model_copy(update={"int8": int8}))
        return Bundle.load(folder)


def refuse_existing(folder: Path) -> None:
    """Raise `InputError` if there is something where a bundle shall be."""
    if folder.exists():
        raise InputError(f"{folder} exists already; choose another place for the bundle.")


def save_bundle(folder: Path, network: "nn.Module", spec: BundleSpec) -> Bundle:
    """Write a bundle, its self-test made of the weights as stored; `InputError` if folder exists.

    `network` has the registry's tensor names; its device, mode and precision do not matter.
    """
    import torch

    from cifar_ray.models.weights import save_weights

    refuse_existing(folder)
    with _folder_made_whole(folder) as unfinished:
        weights_file = unfinished / WEIGHTS_FILE
        save_weights(network, weights_file, getattr(torch, spec.weights_dtype))
        record = BundleRecord(
            **dict(spec),
            created_by=__version__,
            model_sha256=file_sha256(weights_file),
            self_test=(),
        )
        images = self_test.draw_images()
        probabilities = _probabilities(Bundle(unfinished, record, ""), images)
        cases = self_test.make_cases(images, probabilities)
        _write_record(unfinished, record.model_copy(update={"self_test": cases}))
        Bundle.load(unfinished).check()
    return Bundle.load(folder)


def _probabilities(bundle: Bundle, images: list[bytes]) -> self_test.Probabilities:
    """Run the float32 network on image files."""
    import torch

    from cifar_ray.models.classifier import Classifier

    preprocess = bundle.spec.preprocess
    classifier = Classifier(bundle.network(), preprocess.mean, preprocess.std).eval()
    with torch.inference_mode():
        logits = classifier(torch.from_numpy(self_test.inputs(images, preprocess)))
    return self_test.softmax(logits.numpy())


def _read_record(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise InputError(
            f"There is no bundle at {path}: a bundle is a folder with {WEIGHTS_FILE} and"
            f" {RECORD_FILE}, made by `cifar-ray train` or `cifar-ray import`."
        )
    for name in (RECORD_FILE, WEIGHTS_FILE):
        if not (path / name).is_file():
            raise InputError(f"{path} is not a whole bundle: {name} is missing. {_REMEDY}")
    try:
        content = json.loads((path / RECORD_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read {path / RECORD_FILE}: {error}. {_REMEDY}") from error
    if not isinstance(content, dict) or "format_version" not in content:
        raise InputError(f"{path / RECORD_FILE} does not describe a bundle. {_REMEDY}")
    if content["format_version"] != FORMAT_VERSION:
        raise InputError(
            f"{path} is a bundle of format {content['format_version']}; cifar-ray {__version__}"
            f" reads format {FORMAT_VERSION}. Use the cifar-ray that made it, or make it again."
        )
    return content


def _validate(content: dict[str, Any], path: Path) -> BundleRecord:
    try:
        return BundleRecord.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5]
        )
        raise InputError(f"{path / RECORD_FILE} does not serve: {faults}. {_REMEDY}") from error


def _write_record(folder: Path, record: BundleRecord) -> None:
    content = record.model_dump(mode="json")
    content[_DIGEST_KEY] = _content_sha256(content)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / RECORD_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")


def _content_sha256(content: dict[str, Any]) -> str:
    """Digest what the JSON says, so that line ends and indentation do not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _files(record: BundleRecord) -> dict[str, str]:
    """Return what lies beside the record, and each file's SHA-256."""
    files = {WEIGHTS_FILE: record.model_sha256}
    if record.int8 is not None:
        files[INT8_GRAPH_FILE] = record.int8.graph_sha256
        files[INT8_WEIGHTS_FILE] = record.int8.weights_sha256
    return files


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal; `InputError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error}.") from error


@contextmanager
def _folder_made_whole(folder: Path) -> Iterator[Path]:
    """Give an unfinished folder beside the place, renamed to it at the end; removed on error."""
    with folder_faults(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = folder.parent / f".{folder.name}.unfinished-{uuid.uuid4().hex[:8]}"
        unfinished.mkdir()
        try:
            yield unfinished
            for path in unfinished.iterdir():
                with path.open("r+b") as file:
                    os.fsync(file.fileno())
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
