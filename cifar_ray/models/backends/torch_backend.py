"""Eager PyTorch: the float32 reference on CPU, and the path for GPUs."""

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from cifar_ray.config.execution import Execution
from cifar_ray.models.backends.base import Backend, Images, Outputs
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.classifier import Classifier


class TorchBackend(Backend):
    """Computes in one thread of its own, so that `submit` returns at once."""

    def __init__(self, bundle: Bundle, execution: Execution) -> None:
        self.execution = execution
        self._device = torch.device(execution.device)
        preprocess = bundle.spec.preprocess
        network = bundle.network().to(self._device, getattr(torch, execution.precision))
        network = network.to(memory_format=torch.channels_last)
        self._classifier = Classifier(network, preprocess.mean, preprocess.std).eval()
        # OpenMP keeps the number of threads by calling thread, so it is set in the one that runs.
        self._executor = ThreadPoolExecutor(
            1, "torch-backend", torch.set_num_threads, (execution.threads,)
        )

    def submit(self, images: Images) -> "Future[Outputs]":
        """Start a batch."""
        batch = torch.from_numpy(images.copy())
        return self._executor.submit(self._run, batch)

    @torch.inference_mode()
    def _run(self, batch: torch.Tensor) -> Outputs:
        if self._device.type == "cuda":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        logits, features = self._classifier.logits_and_features(batch)
        return Outputs(logits.cpu().numpy(), None if features is None else features.cpu().numpy())
