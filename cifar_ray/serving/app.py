"""HTTP: routes, what OpenAPI says of them, and errors as answers."""

from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response

from cifar_ray import __version__
from cifar_ray.serving.answers import Health, Models, Prediction, ProblemDetail
from cifar_ray.serving.guards import Counted, KeyCheck
from cifar_ray.serving.metrics import CONTENT_TYPE, Snapshot, render
from cifar_ray.serving.problems import Problem
from cifar_ray.serving.service import Service

Snapshots = Callable[[], Awaitable[Sequence[Snapshot]]]
"""Gives the counts of all replicas."""

PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
MAX_NAME_CHARACTERS = 200
MAX_TOP_K = 1000
_BINARY = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "properties": {"image": {"type": "array", "items": _BINARY, "minItems": 1}},
    "required": ["image"],
}
BODY: dict[str, Any] = {
    "required": True,
    "description": "A form with one or more files, an image, or (if allowed) a list of URLs.",
    "content": {
        "multipart/form-data": {"schema": _FORM},
        "image/*": {"schema": _BINARY},
        "application/octet-stream": {"schema": _BINARY},
        "application/json": {
            "schema": {
                "type": "array",
                "items": {"type": "string", "format": "uri"},
                "minItems": 1,
            },
            "example": ["https://images.example.com/frog.jpg"],
        },
    },
}
_MEANINGS = {
    400: "The request is malformed.",
    401: "It has no valid API key.",
    403: "It names URLs, which this service does not fetch.",
    404: "There is no such model or page.",
    408: "Its body came too slowly.",
    413: "It is too large, or has too many images.",
    415: "Its content type is unknown.",
    422: "A parameter is wrong.",
    429: "The service is busy; Retry-After says when to try again.",
    503: "The service could not answer in time, or is not ready.",
}


def create_app(service: Service, snapshots: Snapshots | None = None) -> FastAPI:
    """Return the application; `snapshots` gives the counts of all replicas (default: this one)."""
    config = service.config
    app = FastAPI(
        title="cifar-ray",
        version=__version__,
        description="Labels images, each with an honest confidence.",
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
    )
    app.include_router(_open_routes(service))
    guarded = [Depends(KeyCheck(config.api_key_digests))]
    app.include_router(_api_routes(service), dependencies=guarded, responses=_problems(401))
    app.include_router(
        _metrics_route(service, snapshots), dependencies=guarded, responses=_problems(401)
    )
    _add_error_answers(app)
    if config.allowed_hosts:
        app.add_middleware(
            TrustedHostMiddleware,
            allowed_hosts=list(config.allowed_hosts),
            www_redirect=False,
        )
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
        )
    app.add_middleware(Counted, metrics=service.metrics)
    return app


def _api_routes(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["labels"])

    @router.post(
        "/predict",
        responses=_problems(400, 403, 404, 408, 413, 415, 422, 429, 503),
        openapi_extra={"requestBody": BODY},
    )
    async def predict(
        request: Request,
        model: Annotated[
            str | None,
            Query(max_length=MAX_NAME_CHARACTERS, description="One of /v1/model's names."),
        ] = None,
        top_k: Annotated[int, Query(ge=1, le=MAX_TOP_K, description="Classes in `top`.")] = 5,
        explain: Annotated[bool, Query(description="Add pictures of the evidence.")] = False,
    ) -> Prediction:
        """Label images: a result for each, in their order, whatever the images are."""
        return await service.predict(request, model, top_k, explain)

    @router.get("/model")
    async def model() -> Models:
        """Tell the models by name, and the limits."""
        return service.describe()

    return router


def _open_routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz", tags=["operation"])
    async def healthz() -> Health:
        """Say that the process answers."""
        return Health(status="alive")

    @router.get("/readyz", tags=["operation"], responses=_problems(503))
    async def readyz() -> Health:
        """Say that the models are loaded and answer."""
        if not service.healthy:
            raise Problem(503, "not_ready", "A model or a decoder does not answer.")
        return Health(status="ready")

    for path, (name, media_type) in PAGE.items():
        content = (resources.files("cifar_ray.serving") / "page" / name).read_bytes()
        _add_asset(router, path, content, media_type)
    return router


def _add_asset(router: APIRouter, path: str, content: bytes, media_type: str) -> None:
    @router.get(path, include_in_schema=False)
    async def asset() -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})


def _metrics_route(service: Service, snapshots: Snapshots | None) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/metrics", response_class=Response, responses={200: {"content": _TEXT}})
    async def metrics() -> Response:
        """Give counts of all replicas in Prometheus' format."""
        counts = await snapshots() if snapshots else [service.metrics.snapshot()]
        return Response(render(counts), media_type=CONTENT_TYPE)

    return router


_TEXT = {"text/plain": {"schema": {"type": "string"}}}


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": ProblemDetail, "description": _MEANINGS[code]} for code in codes}


def _add_error_answers(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return _problem_answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        # Without the values: they are the client's text.
        faults = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
        return _problem_answer(Problem(422, "invalid_parameter", faults))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        problem = Problem(error.status_code, "refused", str(error.detail), error.headers)
        return _problem_answer(problem)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        # The server logs it; the client learns nothing of the inside.
        return _problem_answer(Problem(500, "unexpected", "The service failed. It is not you."))


def _problem_answer(problem: Problem) -> Response:
    detail = ProblemDetail(code=problem.code, message=problem.message)
    return JSONResponse(detail.model_dump(), problem.status, problem.headers)
