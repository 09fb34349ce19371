"""What every backend does: a batch of uint8 images in, logits and features out."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cifar_ray.config.execution import Execution
from cifar_ray.errors import InputError
from cifar_ray.models import self_test
from cifar_ray.models.bundle_spec import BundleRecord
from cifar_ray.models.cache import cache_folder

Images = NDArray[np.uint8]


class Outputs(NamedTuple):
    """Logits B×C and features B×D, float32; features are None where a network has none."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32] | None


class Pending(Protocol):
    """A batch under way."""

    def result(self) -> Outputs:
        """Wait for the outputs; called once."""


class Backend(ABC):
    """A loaded model that takes batches of one fixed size.

    `submit` copies its images and returns at once, so that the caller can decode the next batch
    meanwhile. `num_parallel` batches are computed side by side; more may wait.
    """

    execution: Execution
    num_parallel: int = 1

    @abstractmethod
    def submit(self, images: Images) -> Pending:
        """Start a batch, B×S×S×3 uint8 with B of `execution.batch_size`."""

    def result(self, pending: Pending) -> Outputs:
        """Wait for a batch."""
        return pending.result()

    def run(self, images: Images) -> Outputs:
        """Start a batch and wait for it."""
        return self.submit(images).result()

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Return N×C for N×S×S×3: cut into batches, the last one padded, all under way at once."""
        size = self.execution.batch_size
        padding = np.zeros((-len(images) % size, *images.shape[1:]), np.uint8)
        padded = np.concatenate([images, padding])
        pending = [self.submit(padded[at : at + size]) for at in range(0, len(padded), size)]
        return np.concatenate([self.result(one).logits for one in pending])[: len(images)]

    def check(self, record: BundleRecord) -> None:
        """Run the bundle's self-test; `InputError` if this backend gives something else."""
        images = self_test.inputs(self_test.case_images(record.self_test), record.preprocess)
        probabilities = self_test.softmax(self.logits(images))
        expected = [case.probabilities for case in record.self_test]
        if self.execution.precision == "int8" and record.int8 is not None:
            expected = list(record.int8.self_test)
        difference = self_test.largest_difference(expected, probabilities)
        if not difference <= self_test.BACKEND_TOLERANCE:
            name = f"{self.execution.backend} {self.execution.precision}"
            raise InputError(
                f"The self-test of {record.network} fails in {name} on this machine:"
                f" probabilities differ by {difference:.2g}"
                f" (allowed: {self_test.BACKEND_TOLERANCE}). Label with --device cpu --precision"
                f" float32; if it is that which fails, delete {cache_folder()} and try again."
            )
