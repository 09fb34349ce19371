"""A bundle that answers: bytes in, a label out, the way that labelling does it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cifar_ray.config.serving import ServiceConfig
from cifar_ray.errors import ImageFault
from cifar_ray.images.decode import DecodedImage, decode
from cifar_ray.models.backends import open_backend, resolve_execution
from cifar_ray.models.bundle import Bundle
from cifar_ray.models.scoring import probabilities, ranking
from cifar_ray.serving.answers import OK, Labelled, ModelInfo, Score
from cifar_ray.serving.batching import Batcher
from cifar_ray.serving.explaining import Explainer
from cifar_ray.serving.work import Work


class ServedModel:
    """One bundle, loaded for each batch size."""

    def __init__(
        self, bundle: Bundle, config: ServiceConfig, batch_done: Callable[[int], None], work: Work
    ) -> None:
        """Load it and run its self-test; `InputError` if it does not serve here."""
        requests = [
            config.execution.model_copy(update={"batch_size": size}) for size in config.batch_sizes
        ]
        executions = [resolve_execution(request, bundle.spec) for request in requests]
        backends = [open_backend(bundle, execution) for execution in executions]
        self.bundle = bundle
        self.execution = executions[0]
        self.batcher = Batcher(backends, batch_done, work)
        self.explainer = Explainer(bundle, self.execution.decoder, config.limits.pixels, work)
        self._work = work
        self._preprocess = bundle.spec.preprocess
        self._decode_options = self._preprocess.decode_options(
            self.execution.decoder, self.execution.decoder_scaling, config.limits.pixels
        )
        self._threads = ThreadPoolExecutor(self.execution.threads, "decode")

    async def label(self, data: bytes | ImageFault, top_k: int) -> Labelled:
        """Label one image; whatever is wrong with it becomes its status."""
        if isinstance(data, ImageFault):
            return Labelled(status=data.status, error=data.error)
        loop = asyncio.get_running_loop()
        try:
            image, pixels = await loop.run_in_executor(self._threads, self._prepare, data)
        except ImageFault as fault:
            return Labelled(status=fault.status, error=fault.error)
        logits = await self.batcher.logits(pixels)
        size = {"width": image.width, "height": image.height}
        if not np.isfinite(logits).all():
            error = "the model gave no finite scores"
            return Labelled(status="model_failed", error=error, **size)
        top = self._top(logits, top_k)
        calibrated = self.bundle.spec.temperature is not None
        return Labelled(
            status=OK,
            label=top[0].label,
            label_id=top[0].label_id,
            confidence=top[0].score if calibrated else None,
            top=top,
            **size,
        )

    def _prepare(self, data: bytes) -> tuple[DecodedImage, NDArray[np.uint8]]:
        with self._work.in_hand():
            image = decode(data, self._decode_options)
            return image, self._preprocess.apply(image.pixels)

    def _top(self, logits: NDArray[np.float32], top_k: int) -> list[Score]:
        spec = self.bundle.spec
        scores = probabilities(logits[np.newaxis], spec.temperature)[0]
        return [
            Score(label=spec.labels[index], label_id=int(index), score=float(scores[index]))
            for index in ranking(logits[np.newaxis], top_k)[0]
        ]

    def info(self) -> ModelInfo:
        """Return what the model says of itself."""
        spec = self.bundle.spec
        accuracy = spec.metrics.get("accuracy")
        return ModelInfo(
            id=self.bundle.id,
            network=spec.network,
            labels=list(spec.labels),
            input_size=spec.preprocess.input_size,
            calibrated=spec.temperature is not None,
            trained_on=spec.trained_on.dataset,
            description=spec.trained_on.description,
            precision=self.execution.precision,
            accuracy=accuracy if isinstance(accuracy, float) else None,
        )
