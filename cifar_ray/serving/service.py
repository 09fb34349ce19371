"""A replica's models and guards; `app.py` puts them behind HTTP.

request -> gate -> images read (uploads, fetching) -> decode -> preprocess -> batch -> answer
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from starlette.requests import Request

from cifar_ray.config.serving import ServiceConfig
from cifar_ray.errors import ImageFault
from cifar_ray.models.bundle import Bundle
from cifar_ray.serving import uploads
from cifar_ray.serving.answers import OK, Labelled, LimitsInfo, Models, Prediction
from cifar_ray.serving.fetching import Fetcher
from cifar_ray.serving.gate import Gate
from cifar_ray.serving.metrics import ServiceMetrics
from cifar_ray.serving.model import ServedModel
from cifar_ray.serving.problems import Problem, busy
from cifar_ray.serving.uploads import Upload
from cifar_ray.serving.work import Work

RAW = ("application/octet-stream", "binary/octet-stream")
STALLED_AFTER = 3
"""Times the limit of a request: what then still decodes or computes will not return."""


class Service:
    """All that answers requests, without HTTP's own matters."""

    def __init__(self, config: ServiceConfig) -> None:
        """Load the models; `InputError` names one that does not serve."""
        self.config = config
        self.metrics = ServiceMetrics()
        self.gate = Gate(config.limits.requests)
        self.metrics.in_flight.set_function(lambda: self.gate.inside)
        self.work = Work()
        self.fetcher = Fetcher(config.url_origins, config.limits)
        self.models = {
            name: ServedModel(
                Bundle.load(folder), config, self.metrics.batches.labels(name).observe, self.work
            )
            for name, folder in config.models.items()
        }

    @property
    def healthy(self) -> bool:
        """Whether every model answered when it was last asked, and no thread hangs."""
        if self.work.longest_s > STALLED_AFTER * self.config.limits.request_s:
            return False
        return all(model.batcher.fault is None for model in self.models.values())

    async def predict(
        self, request: Request, model_name: str | None, top_k: int, explain: bool
    ) -> Prediction:
        """Answer a request; `Problem` says why not."""
        name = model_name or self.config.default_model
        model = self.models.get(name)
        if model is None:
            raise Problem(404, "unknown_model", "The service has no model of that name.")
        deadline = asyncio.get_running_loop().time() + self.config.limits.request_s
        with self.gate.enter():
            try:
                async with asyncio.timeout_at(deadline):
                    images = await self._read(request)
            except TimeoutError as error:
                raise Problem(408, "timeout", "The images took too long to come.") from error
            try:
                async with asyncio.timeout_at(deadline):
                    results = await self._label(model, images, top_k, explain)
            except TimeoutError as error:
                raise busy("The service has more to do than it can.", 503) from error
        for result in results:
            self.metrics.images.labels(name, result.status).inc()
        return Prediction(model=model.bundle.id, results=results)

    async def _read(self, request: Request) -> Sequence[Upload]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        limits = self.config.limits
        if kind == "multipart/form-data":
            return await uploads.read_form(request, limits)
        if kind.startswith("image/") or kind in RAW:
            return [await uploads.read_raw(request, limits)]
        if kind == "application/json":
            if not self.fetcher.enabled:
                raise Problem(403, "no_urls", "This service fetches no URLs. Send the images.")
            return await self.fetcher.fetch_all(await uploads.read_urls(request, limits))
        raise Problem(
            415,
            "unknown_content_type",
            "Send a multipart form with files, an image (image/jpeg, application/octet-stream, …)"
            " or a JSON list of URLs.",
        )

    async def _label(
        self, model: ServedModel, images: Sequence[Upload], top_k: int, explain: bool
    ) -> list[Labelled]:
        one = partial(self._label_one, model, top_k=top_k, explain=explain)
        return list(await asyncio.gather(*map(one, images)))

    @staticmethod
    async def _label_one(model: ServedModel, image: Upload, top_k: int, explain: bool) -> Labelled:
        result = await model.label(image, top_k)
        if not explain or result.status != OK or isinstance(image, ImageFault):
            return result
        assert result.label_id is not None
        url = await model.explainer.explain(image, result.label_id)
        return result.model_copy(update={"explanation": url})

    def describe(self) -> Models:
        """Return the models and the limits."""
        limits = self.config.limits.model_dump(include=set(LimitsInfo.model_fields))
        return Models(
            default=self.config.default_model,
            models={name: model.info() for name, model in self.models.items()},
            limits=LimitsInfo(**limits),
            urls=self.fetcher.enabled,
        )
