"""The bot's side of the service's HTTP API."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_delay,
    wait_exponential,
)

from cifar_ray.config.bot import KEY_VARIABLE, BotSettings
from cifar_ray.config.serving import Limits

TIMEOUT_S = 60.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 3.0
REQUEST_BYTES = Limits().request_bytes
FORM_BYTES = 1024
"""More than a form says around a file."""
logger = logging.getLogger(__name__)


class ServiceAway(Exception):
    """The service does not answer, or is too busy to; it may later. The text is for the log."""


class KeyRefused(ServiceAway):
    """The service wants an API key that it knows: only who runs the bot can do something."""


class ServiceRefused(Exception):
    """The service will not answer this request, whenever it is sent; the text is for the user."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Score(_Answer):
    """A class and its probability."""

    label: str
    score: float


class Result(_Answer):
    """What became of one image."""

    status: str
    error: str | None
    confidence: float | None
    top: tuple[Score, ...]
    explanation: str | None


class Model(_Answer):
    """What a model says of itself."""

    network: str
    labels: tuple[str, ...]
    trained_on: str
    accuracy: float | None


class ServiceClient:
    """Asks the service, again and again for a while when it is away."""

    def __init__(self, settings: BotSettings) -> None:
        key = settings.api_key
        self._patience_s = settings.patience_s
        self._http = httpx.AsyncClient(
            base_url=settings.service_url,
            headers={"X-API-Key": key.get_secret_value()} if key else {},
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    async def label(self, images: Sequence[bytes], explain: bool = False) -> list[Result]:
        """Return a result for each image, in order; raises `ServiceAway`, `ServiceRefused`."""
        requests = [await self._label(part, explain) for part in parts(images)]
        return [result for results in requests for result in results]

    async def _label(self, images: Sequence[bytes], explain: bool) -> list[Result]:
        files = [("image", (f"{number}", data)) for number, data in enumerate(images)]
        query = {"top_k": 3, "explain": str(explain).lower()}
        answer = await self._ask("POST", "/v1/predict", params=query, files=files)
        try:
            return [Result.model_validate(result) for result in answer["results"]]
        except (KeyError, TypeError, ValidationError) as error:
            raise ServiceRefused("The service answered in a way that I do not know.") from error

    async def model(self) -> Model:
        """Return the default model."""
        answer = await self._ask("GET", "/v1/model")
        try:
            return Model.model_validate(answer["models"][answer["default"]])
        except (KeyError, TypeError, ValidationError) as error:
            raise ServiceRefused("The service answered in a way that I do not know.") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(ServiceAway) & retry_if_not_exception_type(KeyRefused),
            stop=stop_after_delay(self._patience_s),
            wait=wait_exponential(FIRST_WAIT_S, LONGEST_WAIT_S),
            reraise=True,
        )
        try:
            return await attempts(self._ask_once, method, path, **options)
        except ServiceAway as away:
            logger.warning("The service does not label: %s.", away)
            raise

    async def _ask_once(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = await self._http.request(method, path, **options)
            if answer.status_code == 200:
                return answer.json()
            if answer.status_code == 401:
                raise KeyRefused(f"it does not know the key in {KEY_VARIABLE}")
            if answer.status_code == 429 or answer.status_code >= 500:
                raise ServiceAway(f"it answers {answer.status_code}")
            raise ServiceRefused(str(answer.json()["message"]))
        except httpx.TransportError as error:
            raise ServiceAway(type(error).__name__) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ServiceAway("something else listens there") from error


def parts(images: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield the images in as few requests as their bytes allow."""
    part: list[bytes] = []
    room = REQUEST_BYTES
    for image in images:
        needed = len(image) + FORM_BYTES
        if part and needed > room:
            yield part
            part, room = [], REQUEST_BYTES
        part.append(image)
        room -= needed
    yield part
